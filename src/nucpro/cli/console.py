"""What a person sees: messages, the log file, the progress bar and the answer to an interrupt."""

from __future__ import annotations

import errno
import io
import itertools
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

from nucpro.errors import NucproError, PreflightError, StoreError
from nucpro.job import Progress
from nucpro.opening import problem_of
from nucpro.summary import human_time
from nucpro.text import printable

__all__ = ["Bar", "FileBar", "Terminated", "console", "exit_code_of", "say"]

_INTERRUPTED = "Interrupted. Everything that was finished is kept; run the same command again to continue."

_NO_MEMORY = (
    "Out of memory: this machine has too little free for the work (a file pair needs about 0.3 GB, the model its "
    "weights); free memory and run the same command again: everything that was finished is kept"
)
_CHECK = "check that it is there, who may use it, and the disk it lies on; then run again"
_OF_SYSTEM = {
    errno.ENAMETOOLONG: "name another place with --output, or shorten the name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
    errno.ELOOP: "a link leads back to itself: correct or remove it",
}
_NOTHING = logging.CRITICAL + 1

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} files [{elapsed}, {time_left} left]"


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt no ``Exception``, so that nothing catches it by accident."""


class Bar(tqdm):  # type: ignore[type-arg]
    """Progress on a terminal; nothing where standard error is none, or where there is none at all.

    Parameters
    ----------
    **options
        Those of tqdm.
    """

    def __init__(self, **options: Any) -> None:
        disable = None if sys.stderr is not None else True
        super().__init__(**options, disable=disable, dynamic_ncols=True, delay=1e-9)


class FileBar(Bar):
    """Progress over files; the time left is computed from residues or bases, since files differ in length.

    Nothing is drawn before the first :meth:`show`, and without a terminal nothing at all: the log line of
    each file is enough.
    """

    def __init__(self) -> None:
        self._seconds_left: float | None = None
        super().__init__(desc="Embedding", unit="file", bar_format=_BAR)

    @property
    def format_dict(self) -> dict[str, Any]:
        """Fields of the bar's format."""
        left = "?" if self._seconds_left is None else human_time(self._seconds_left)
        return {**super().format_dict, "time_left": left}

    def show(self, progress: Progress) -> None:
        """Move to where the run is."""
        self._seconds_left = progress.seconds_left
        if self.total != progress.total or progress.files < self.n:
            self.reset(progress.total)
            self.initial = self.n = progress.files
        self.update(progress.files - self.n)
        self.refresh()


class _Plain(logging.Formatter):
    """Messages, tracebacks included, in which no name of a record or file can steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Lines(logging.Handler):
    """Messages as plain lines on standard output, above the bar where there is one; problems on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Plain())

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if stream is None:
            return
        try:
            for line in self.format(record).split("\n"):
                tqdm.write(line, file=stream)
        except OSError:
            # Nobody listens any more, or the disk behind a redirection is full: the run goes on without.
            return


class _LogFile(logging.FileHandler):
    """The log file; when it cannot be written any more, that is said once, and the run goes on without it."""

    def close(self) -> None:
        # Closing writes what is still waiting, which fails again on a full disk.
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if self.level != _NOTHING:
            self.setLevel(_NOTHING)
            reason = sys.exc_info()[1]
            # Standard output may go to the same full disk.
            with suppress(NucproError, OSError):
                say(
                    f"Warning: {self.baseFilename}: cannot be written any more ({reason}); nothing is lost but the log"
                )


@contextmanager
def console(log_file: Path | None = None) -> Iterator[None]:
    """Show nucpro's messages, and also write them to a log file, for the length of a ``with`` block.

    SIGTERM raises :class:`Terminated` meanwhile.
    """
    _write_each_line()
    logger = logging.getLogger("nucpro")
    handlers: list[logging.Handler] = [_Lines()]
    if log_file is not None:
        handlers += _log_file(log_file)
    before = signal.signal(signal.SIGTERM, _terminate)
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _write_each_line() -> None:
    """Write a line when it is said, also to a pipe or a file, where Python would keep it until there are many.

    What the encoding lacks is shown as escapes: no name of a file may stop a run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def _log_file(path: Path) -> list[logging.Handler]:
    try:
        if not path.parent.is_dir():
            return []
        handler = _LogFile(path, encoding="utf-8")
    except OSError:
        # A folder that cannot be written is one of the problems that pre-flight reports.
        return []
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    return [handler]


def say(line: str) -> None:
    """Print one line of a command's answer.

    Raises
    ------
    BrokenPipeError
        Nobody reads it any more.
    StoreError
        It cannot be written where standard output goes.
    """
    try:
        print(printable(line), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(
            f"standard output: cannot be written ({error.strerror}), so the answer is not complete; free space where "
            "it goes, then run again: what was made is kept"
        ) from error


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def exit_code_of(error: BaseException) -> int:
    """Show how a run ended, and give the exit code for it.

    Parameters
    ----------
    error : BaseException
        What ended the run.

    Returns
    -------
    int
        1 data or validation error, 2 usage, 3 pre-flight, 130 and 143 interrupted.
    """
    logger = logging.getLogger("nucpro")
    error = _first_told(error)
    if isinstance(error, KeyboardInterrupt | Terminated):
        logger.warning(_INTERRUPTED)
        return 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
    if isinstance(error, NucproError):
        logger.error("%s", error, exc_info=error if error.shows_traceback else None)
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        # What the system says of a path that was given, or of what lies below it, is no fault of the program.
        logger.error(
            "%s: %s; %s",
            os.fsdecode(error.filename),
            error.strerror,
            _OF_SYSTEM.get(error.errno or 0, _CHECK),
        )
        return PreflightError.exit_code if error.errno == errno.ENAMETOOLONG else 1
    if isinstance(error, MemoryError):
        logger.error("%s", _NO_MEMORY)
        return 1
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
        logger.error("%s: %s", path, problem_of(path, error))
        return 1
    logger.error("Unexpected error, please report it: %s", error, exc_info=error)
    return 1


def _first_told(error: BaseException) -> BaseException:
    """Find the interrupt, or the error in words of our own, where cleaning up failed once more after it."""
    chain = [error]
    while (before := chain[-1].__context__) is not None:
        chain.append(before)
    interrupts = (one for one in chain if isinstance(one, KeyboardInterrupt | Terminated))
    told = next(itertools.dropwhile(lambda one: isinstance(one, OSError), chain), error)
    return next(interrupts, told if isinstance(told, NucproError) else error)
