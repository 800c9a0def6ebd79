"""The program ``nucpro``, also as ``python -m nucpro``: answers signals from its first moment to its last.

Importing the commands takes a while; this module imports nothing of them before it can answer an interrupt
in words. While a command runs, :mod:`nucpro.cli.console` answers.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["entry"]

_INTERRUPTED = "Interrupted. Run the same command again to continue.\n"


def entry() -> None:
    """Run one command as the program that was started."""
    signal.signal(signal.SIGTERM, _end)
    try:
        from nucpro.cli.main import leave, main  # noqa: PLC0415

        leave(main())
    except KeyboardInterrupt:
        _end(signal.SIGINT, None)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # Written by the system's own call: the interpreter may be in the middle of anything.
    os.write(sys.stderr.fileno(), _INTERRUPTED.encode())
    os._exit(128 + number)


if __name__ == "__main__":
    entry()
