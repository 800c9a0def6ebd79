"""Report of a run: one HTML page that needs no network, and pictures for papers."""

from __future__ import annotations

__all__ = ["LAYOUTS", "MOST_POINTS", "POINTS"]

LAYOUTS = ("pca", "umap")
"""Methods of the map, the default first."""

POINTS = 20_000
"""Sequences on the map, unless another number is asked for."""
MOST_POINTS = 50_000
"""Most sequences on the map: what a browser opens at once, and what 2 GB of memory hold."""
