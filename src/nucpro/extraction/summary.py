"""The words of a run: what was found, what will be done, and what came out. Text only; others show it."""

from __future__ import annotations
