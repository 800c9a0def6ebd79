"""A data folder: its paths, what lies in it, which files are selected, and splitting."""

from __future__ import annotations
