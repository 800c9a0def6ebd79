"""Run ``nucpro`` and let a fault happen at the N-th event of this process or of one of its workers.

    python strike.py FOLDER WHO:N:FAULT ARGUMENTS...

Events are what the interpreter reports to audit hooks (files opened, renamed, removed, folders made and
listed), and both sides of every ``fsync``; counted over all threads of a process. WHO says which count:

- ``main``: those of this process in the data folder FOLDER;
- ``record``: of these, those of the files that record what is done;
- ``worker``: those of a worker process in the folder; each worker counts on its own;
- ``start``: all of this process from the first import on.

FAULT is a signal, or one of

- ``fill``: everything that is free on the file system is taken;
- ``forbid``: no folder may be written any more;
- ``freeze``: the folder becomes a read-only mount.

With ``all:0:none`` nothing happens, and each process writes its numbers of events to ``FOLDER.events/WHO-PROCESS``.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
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
    """Counts events of one kind, and strikes at one of them."""

    def __init__(self, folder: str, who: str, strike_at: int, strike: Callable[[], object]) -> None:
        self.folder = folder
        self.prefix = {"record": f"{folder}/.extraction_", "start": ""}.get(who, folder)
        self.watched = WATCHED | {"import"} if who == "start" else WATCHED
        self.who = who
        self.strike_at = strike_at
        self.strike = strike
        self.count = 0
        self._lock = threading.RLock()
        self._reporting = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.watched and any(str(part).startswith(self.prefix) for part in arguments[:2]):
            self.happened()

    def happened(self) -> None:
        with self._lock:
            if self._reporting:
                return
            self.count += 1
            struck = self.count == self.strike_at
            if self.who == "worker" and self.strike_at == 0:
                # A worker may end at any time.
                self.report()
        if struck:
            self.strike()

    def report(self) -> None:
        """Write down how many events there were."""
        self._reporting = True
        folder = Path(f"{self.folder}.events")
        folder.mkdir(exist_ok=True)
        (folder / f"{self.who}-{os.getpid()}").write_text(str(self.count))
        self._reporting = False

    def watch(self) -> None:
        sys.addaudithook(self)
        if self.who != "record":
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
    """Make the folder read-only for everything that is opened from now on, and for whoever has a file open there.

    The kernel refuses while a file is being written, so this waits until that is done.
    """
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    for _ in range(100):
        if subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=False).returncode == 0:
            return
        time.sleep(0.01)
    raise SystemExit(f"{folder} cannot be made read-only")


def send(sign: signal.Signals) -> None:
    """Send a signal to this process, and end it with a code of its own if it is still there a while later."""
    if sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        watchdog = threading.Timer(LONGEST_ANSWER, os._exit, (NO_ANSWER,))
        watchdog.daemon = True
        watchdog.start()
    os.kill(os.getpid(), sign)


FAULTS = {"fill": fill, "forbid": forbid, "freeze": freeze}


def counters(folder: str, point: str, mine: tuple[str, ...]) -> list[Counter]:
    """Counters that a process needs which counts these kinds."""
    who, number, fault = point.split(":")
    if who == "all":
        return [Counter(folder, one, 0, lambda: None) for one in mine]
    strike = (
        (lambda: FAULTS[fault](Path(folder))) if fault in FAULTS else (lambda: send(signal.Signals[fault]))
    )
    return [Counter(folder, who, int(number), strike)] if who in mine else []


def main(folder: str, point: str, arguments: list[str]) -> None:
    # Workers are told the arguments of the program; they find the point in this one, and what strikes in the other.
    os.environ[POINT] = f"{folder}\n{point}"
    places = [str(Path(__file__).parent / "workers"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    sys.argv[1:] = arguments
    # A shell that starts the tests in its background has them ignore this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    watching = counters(folder, point, ("main", "record", "start"))
    for counter in watching:
        counter.watch()
    from nucpro.__main__ import entry

    entry()
    if point.startswith("all:"):
        for counter in watching:
            counter.report()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
