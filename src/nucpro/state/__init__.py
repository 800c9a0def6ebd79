"""What is remembered of a data folder: facts about files, the history of runs, the lock, how vectors were made."""

from __future__ import annotations
