"""State of a data folder: facts about files, the history of runs, the lock, the provenance of vectors."""

from __future__ import annotations
