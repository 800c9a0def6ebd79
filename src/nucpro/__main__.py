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

from nucpro.machine import ending_signals

__all__ = ["answer_signals", "entry", "open_streams"]

_INTERRUPTED = "Interrupted. Run the same command again to continue.\n"


def entry() -> None:
    """Run one command as the program that was started."""
    answer_signals()
    from nucpro.cli.main import leave, main  # noqa: PLC0415

    leave(main())


def answer_signals() -> None:
    """Answer signals in one line from now on; programs call it before they import anything else."""
    open_streams()
    # tqdm takes any of its settings from the environment, and one that it cannot read would end its import.
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]
    for number in ending_signals():
        signal.signal(number, _end)


def open_streams() -> None:
    """Connect closed standard streams (``2>&-``, some schedulers) to the null device.

    Otherwise the next files that are opened would get these numbers, and what libraries write to standard error
    would end up in a file of results.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is given out, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # Written by the system's own call: the interpreter may be in the middle of anything.
    os.write(sys.stderr.fileno(), _INTERRUPTED.encode())
    os._exit(128 + number)


if __name__ == "__main__":
    entry()
