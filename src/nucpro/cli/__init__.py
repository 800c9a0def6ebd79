"""The command line: arguments, exit codes, progress. Nothing else prints."""

from nucpro.cli.main import main

__all__ = ["main"]
