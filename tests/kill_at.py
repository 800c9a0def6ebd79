"""Run ``nucpro`` and kill this process with SIGKILL at the N-th event that touches a data folder.

    python kill_at.py FOLDER N ARGUMENTS...

Events are those that the interpreter reports to audit hooks (files opened, renamed, removed, folders
made), counted over all threads. With N = 0 nothing is killed, and the number of events is written to
``FOLDER.events``. A second signal can be sent in place of SIGKILL by naming it: ``N:SIGTERM``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.truncate"}


class Counter:
    """Counts events below a folder, and strikes at one of them."""

    def __init__(self, folder: str, strike_at: int, sign: int) -> None:
        self.folder = folder
        self.strike_at = strike_at
        self.sign = sign
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or not any(self.folder in str(part) for part in arguments[:2]):
            return
        with self._lock:
            self.count += 1
            if self.count == self.strike_at:
                os.kill(os.getpid(), self.sign)


def main() -> None:
    folder, point, *arguments = sys.argv[1:]
    number, _, name = point.partition(":")
    counter = Counter(folder, int(number), signal.Signals[name or "SIGKILL"])
    from nucpro.cli.main import leave
    from nucpro.cli.main import main as nucpro

    sys.addaudithook(counter)
    code = nucpro(arguments)
    if counter.strike_at == 0:
        Path(f"{folder}.events").write_text(str(counter.count))
    leave(code)


if __name__ == "__main__":
    main()
