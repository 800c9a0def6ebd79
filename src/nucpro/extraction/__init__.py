"""The main job: what has to be made, checks before it, vectors of both sequence types, merging, validation."""

from __future__ import annotations
