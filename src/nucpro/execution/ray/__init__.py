"""The engine of many GPUs and many machines, on Ray."""

from __future__ import annotations
