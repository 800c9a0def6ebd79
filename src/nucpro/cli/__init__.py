"""The command line: arguments, exit codes, progress. Nothing else prints."""

from nucpro.cli.main import entry, main

__all__ = ["entry", "main"]
