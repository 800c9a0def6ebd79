"""The main pipeline: plan, pre-flight checks, vectors of both sequence types, merging, validation."""

from __future__ import annotations
