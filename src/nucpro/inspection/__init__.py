"""Looking at things without changing them: files, runs at work, this machine."""

from __future__ import annotations
