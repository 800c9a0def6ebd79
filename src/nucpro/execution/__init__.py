"""Where work is done: worker processes of this machine, one device, or the workers of a Ray cluster."""

from __future__ import annotations
