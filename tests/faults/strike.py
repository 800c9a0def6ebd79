"""Run ``nucpro`` and let a fault happen at the N-th event of this process or of one of its workers.

    python strike.py PREFIX WHO:N:FAULT ARGUMENTS...

Events are what the interpreter reports to audit hooks (files opened, renamed, removed, folders made and
listed), and both sides of every ``fsync``; counted over all threads of a process. Those count whose path
begins with PREFIX, a data folder or a part of it; with WHO ``start`` every event from the first import on.

WHO is ``main``, ``worker`` (each worker process counts on its own) or ``start``. FAULT is a signal, or one of

- ``fill``: everything that is free on the file system is taken;
- ``forbid``: no folder may be written any more;
- ``freeze``: the folder becomes a read-only mount.

With N = 0 nothing happens, and each process writes its number of events to ``PREFIX.events/WHO-PROCESS``.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.truncate", "os.chmod"}
LONGEST_ANSWER = 5.0
"""Seconds in which an interrupt must have been answered."""
POINT = "STRIKE_POINT"
"""Environment variable by which worker processes learn the point."""
NO_ANSWER = 99
"""Exit code where it was not."""
FILLER = "filler"
"""Name of the file that takes all space; the test removes it."""


class Counter:
    """Counts events, and strikes at one of them."""

    def __init__(self, prefix: str, who: str, strike_at: int, strike: Callable[[], object]) -> None:
        self.prefix = prefix
        self.who = who
        self.strike_at = strike_at
        self.strike = strike
        self.count = 0
        self._lock = threading.RLock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        everything = self.who == "start" and (event in WATCHED or event == "import")
        if everything or (
            event in WATCHED and any(str(part).startswith(self.prefix) for part in arguments[:2])
        ):
            self.happened()

    def happened(self) -> None:
        with self._lock:
            self.count += 1
            struck = self.count == self.strike_at
        if struck:
            self.strike()

    def report(self) -> None:
        """Write down how many events there were."""
        folder = Path(f"{self.prefix}.events")
        folder.mkdir(exist_ok=True)
        (folder / f"{self.who}-{os.getpid()}").write_text(str(self.count))

    def watch(self) -> None:
        sys.addaudithook(self)
        sync = os.fsync

        def watched_sync(descriptor: int) -> None:
            self.happened()
            sync(descriptor)
            self.happened()

        os.fsync = watched_sync


def fill(folder: Path) -> None:
    """Take all the space of a file system, to the last byte."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def forbid(folder: Path) -> None:
    """Take the permission to write from all folders."""
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        inner.chmod(0o500)


def freeze(folder: Path) -> None:
    """Make the folder read-only for everything that is opened from now on."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)


def send(sign: signal.Signals) -> None:
    """Send a signal to this process, and end it with a code of its own if it is still there a while later."""
    if sign in (signal.SIGINT, signal.SIGTERM):
        watchdog = threading.Timer(LONGEST_ANSWER, os._exit, (NO_ANSWER,))
        watchdog.daemon = True
        watchdog.start()
    os.kill(os.getpid(), sign)


FAULTS = {"fill": fill, "forbid": forbid, "freeze": freeze}


def counter_of(prefix: str, point: str) -> Counter:
    who, number, fault = point.split(":")
    kind = WorkerCounter if who == "worker" and int(number) == 0 else Counter
    if fault in FAULTS:
        return kind(prefix, who, int(number), lambda: FAULTS[fault](Path(prefix)))
    return kind(prefix, who, int(number), lambda: send(signal.Signals[fault]))


def main(counter: Counter, arguments: list[str]) -> None:
    # Workers are told the arguments of the program; they find the point in this one.
    os.environ[POINT] = "\n".join(sys.argv[1:3])
    sys.argv[1:] = arguments
    if counter.who != "worker":
        counter.watch()
    from nucpro.__main__ import entry

    entry()
    if counter.strike_at == 0 and counter.who != "worker":
        counter.report()


class WorkerCounter(Counter):
    """Counter of a worker process: it may end at any time, so each event is reported at once."""

    def happened(self) -> None:
        with self._lock:
            if self.reporting:
                return
            super().happened()
            self.reporting = True
            self.report()
            self.reporting = False

    reporting = False


if __name__ == "__main__":
    main(counter_of(sys.argv[1], sys.argv[2]), sys.argv[3:])
elif __name__ == "__mp_main__":
    # Worker processes import the program that was started under this name.
    counter = counter_of(*os.environ[POINT].split("\n"))
    if counter.who == "worker":
        counter.watch()
