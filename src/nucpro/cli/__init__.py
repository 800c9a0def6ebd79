"""The command line: arguments, exit codes, progress. Nothing else prints."""

from __future__ import annotations

from nucpro.cli.main import main

__all__ = ["main"]
