"""A data folder: its paths, its inventory, the selection of files, and splitting."""

from __future__ import annotations
