"""Execution of work: in worker processes of this machine, on one device, or on a Ray cluster."""

from __future__ import annotations
