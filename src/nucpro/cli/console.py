"""Console output: messages, the log file, progress and the handling of interrupts."""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from nucpro.errors import NucproError, PreflightError, StoreError, UsageError, human_time, printable
from nucpro.formats.opening import REMEDIES_OF_LIMITS, open_kept, problem_of
from nucpro.machine import ending_signals
from nucpro.progress import Progress, Show, bar, silent

__all__ = [
    "PROGRESS",
    "Manner",
    "Steps",
    "Terminated",
    "console",
    "exit_code_of",
    "say",
    "showing",
    "summary",
    "told_end",
]

logger = logging.getLogger("nucpro")

_INTERRUPTED = "Interrupted. Finished work is kept; run the same command again to continue."

_NO_MEMORY = (
    "Out of memory: too little free memory on this machine (a file pair needs about 0.3 GB, the model its "
    "weights), or too low a limit (ulimit -v, ulimit -u, the batch system's); free memory or raise the limit, then "
    "run the same command again: finished work is kept"
)
_OF_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "bad_alloc",
    "out of memory",
)
"""Messages of Python, the linker and torch if memory, address space or threads run out: no class of errors has them."""
_OF_SYSTEM = {
    errno.ELOOP: "a link leads back to itself: correct or remove it",
}
_TOO_LONG = "give the path of an existing file or folder, or a shorter name"
_TOO_LONG_OUTPUT = "name another place with --output, or shorten the name"
_NOTHING = logging.CRITICAL + 1

_SHORT = 10.0
"""Seconds."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; like KeyboardInterrupt no ``Exception``, so that nothing catches it by accident."""


_INTERRUPTS: dict[type[BaseException], signal.Signals] = {
    KeyboardInterrupt: signal.SIGINT,
    Terminated: signal.SIGTERM,
}

BAR, LINES, JSON = "bar", "lines", "json"
PROGRESS = (BAR, LINES, JSON)
"""Ways to show progress: a bar on standard error, lines among the messages, or JSON for programs."""


@dataclass(frozen=True)
class Manner:
    """Amount and form of console output.

    Parameters
    ----------
    progress : str, optional
        One of :data:`PROGRESS`; by default a bar if standard error is a terminal, else lines.
    quiet : bool
        Show only warnings and errors, and the output of read-only commands.
    verbose : bool
        Also show the time of each message, details such as the time of each step, and tracebacks.
    """

    progress: str | None = None
    quiet: bool = False
    verbose: bool = False


_manner = Manner()
_arrived: signal.Signals | None = None
"""The signal that ends this command: what was raised for it may be lost on its way through code in C."""


@contextmanager
def showing() -> Iterator[Show]:
    """Provide a function that shows progress, and remove the bar at the end of a ``with`` block."""
    with _form() as show:
        if not _manner.verbose:
            yield show
            return
        with closing(_Timed(show)) as details:
            yield details.show


@contextmanager
def _form() -> Iterator[Show]:
    """Show progress in the form that was chosen."""
    stream = sys.stderr
    form = _manner.progress or (BAR if stream is not None and stream.isatty() else LINES)
    if _manner.quiet:
        yield silent
    elif form == LINES:
        # By default, short steps print no progress lines.
        yield Steps(0 if _manner.progress else _SHORT).show
    elif form == JSON:
        yield lambda progress: _write_json(event="progress", **asdict(progress))
    else:
        with bar() as show:
            yield show


def _above_bar(stream: TextIO | None = None) -> AbstractContextManager[object]:
    """Hide the bar, if there is one, while something is written."""
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return nullcontext() if tqdm is None else tqdm.external_write_mode(file=stream)


class _Timed:
    """Logs how long each part of a command took, among the details."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._last: Progress | None = None
        self._began = 0.0

    def show(self, progress: Progress) -> None:
        """Show how far a part is; it ends with its last unit, or where another one begins."""
        if self._last is None or self._last.part != progress.part:
            self.close()
            self._began = time.monotonic()
        self._last = progress
        self._show(progress)
        if progress.done == progress.total:
            self.close()

    def close(self) -> None:
        """End the part that is shown."""
        if self._last is not None:
            seconds = human_time(time.monotonic() - self._began)
            logger.debug("%s: %s in %s", self._last.message, self._last.amount, seconds)
        self._last = None


class Steps:
    """Progress as lines: one at the start of each part of a command, and one for each 10% of it.

    Parameters
    ----------
    patience : float
        Seconds of a part before its first line.
    clock : callable
        Monotonic clock, in seconds.
    """

    def __init__(self, patience: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._part: object = None
        self._step = -1
        self._began = 0.0

    def show(self, progress: Progress) -> None:
        """Print a line, unless it was printed before."""
        if self._part != progress.part:
            self._part, self._step, self._began = progress.part, -1, self._clock()
        # Without a total, print a line whenever the count has doubled.
        step = progress.done.bit_length() if not progress.total else 10 * progress.done // progress.total
        if step != self._step and self._clock() - self._began >= self._patience:
            self._step = step
            line = ", ".join(filter(None, (progress.amount, progress.left)))
            # The pipe is closed, or the disk of a redirection is full: the run continues without this output.
            with suppress(OSError):
                print(printable(f"{progress.message}: {line}"), flush=True)


def _write_json(**fields: object) -> None:
    """Write one line for programs, if standard error is open and read."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(json.dumps(fields), file=sys.stderr, flush=True)


class _Plain(logging.Formatter):
    """Formatter that escapes control characters of names, also in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Lines(logging.Handler):
    """Messages as plain lines on standard output, above any bar; warnings and errors on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Plain())

    def emit(self, record: logging.LogRecord) -> None:
        is_problem = record.levelno >= logging.WARNING
        text = self.format(record)
        if is_problem and _manner.progress == JSON:
            _write_json(event="message", level=record.levelname.lower(), text=text)
            return
        stream = sys.stderr if is_problem else sys.stdout
        if stream is None or (_manner.quiet and not is_problem):
            return
        time_of_day = time.strftime("%H:%M:%S ", time.localtime(record.created)) if _manner.verbose else ""
        kind = "Warning: " if record.levelno == logging.WARNING else ""
        try:
            for line in f"{time_of_day}{kind}{text}".split("\n"):
                with _above_bar(stream):
                    stream.write(f"{line}\n")
        except OSError:
            # The pipe is closed, or the disk of a redirection is full: the run continues without this output.
            return


class _LogFile(logging.FileHandler):
    """The log file; if it becomes unwritable, this is reported once, and the run continues without it."""

    def __init__(self, path: Path) -> None:
        self._is_new = not os.path.lexists(path)
        super().__init__(path)

    def _open(self) -> io.TextIOWrapper:
        file = open_kept(Path(self.baseFilename), append=True)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8")

    def discard(self) -> None:
        """Remove the log of a command that was refused, where there was none and no other command writes it."""
        if self._is_new and self.stream is not None:
            self.setLevel(_NOTHING)
            with suppress(OSError):
                fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(self.baseFilename).unlink()

    def close(self) -> None:
        # Closing flushes the buffer, which fails again on a full disk.
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if self.level != _NOTHING:
            self.setLevel(_NOTHING)
            reason = sys.exc_info()[1]
            logger.warning(
                "%s: cannot be written any more (%s); only the log is affected", self.baseFilename, reason
            )


@contextmanager
def console(log_file: Path | None = None, manner: Manner | None = None) -> Iterator[None]:
    """Show nucpro's messages, and also write them to a log file, during a ``with`` block.

    During the block, SIGTERM and SIGHUP raise :class:`Terminated`, and SIGINT ``KeyboardInterrupt``.
    """
    global _manner  # noqa: PLW0603 - the streams of a process are one for all, and so is what goes to them
    _write_each_line()
    before, _manner = _manner, manner or Manner()
    handlers: list[logging.Handler] = []
    level = logger.level
    logger.setLevel(logging.DEBUG if _manner.verbose else logging.INFO)
    try:
        # In this order: the first handler shows problems of the log file.
        for handler in itertools.chain([_Lines()], _log_files(log_file)):
            handlers.append(handler)
            logger.addHandler(handler)
        with _signals_raise():
            yield
    finally:
        _manner = before
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def told_end(code: int) -> int:
    """Report the exit code of a command to programs, and return it; a command that is refused leaves no new log."""
    if code in (UsageError.exit_code, PreflightError.exit_code):
        for handler in logger.handlers:
            if isinstance(handler, _LogFile):
                handler.discard()
    if _manner.progress == JSON:
        _write_json(event="end", exit_code=code)
    return code


def _write_each_line() -> None:
    """Use line buffering, also for pipes and files.

    Characters outside the encoding are escaped, so that no file name can stop a run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def _log_files(path: Path | None) -> Iterator[logging.Handler]:
    if path is None:
        return
    try:
        handler = _LogFile(path)
    except StoreError as error:
        # Pre-flight reports folders that are missing or not writable.
        if os.path.lexists(path):
            logger.warning("%s; this run writes no log", error)
        return
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    yield handler


def say(line: str) -> None:
    """Print one line of a command's result.

    Raises
    ------
    BrokenPipeError
        The reader has closed the pipe.
    StoreError
        Standard output cannot be written.
    """
    try:
        with _above_bar():
            print(printable(line), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(
            f"standard output: cannot be written ({error.strerror}), so the output is incomplete; free disk space "
            "there, then run again: finished work is kept"
        ) from error


def summary(lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Print the summary of a command that made files, if not ``-q``, and log its warnings.

    Raises
    ------
    BrokenPipeError, StoreError
        As :func:`say`.
    """
    for warning in warnings:
        logger.warning("%s", warning)
    for line in () if _manner.quiet else lines:
        say(line)


@contextmanager
def _signals_raise() -> Iterator[None]:
    global _arrived  # noqa: PLW0603 - signals come to a process, not to one of its objects
    _arrived = None
    before = {number: signal.signal(number, _interrupt) for number in ending_signals()}
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_send_again, hook)
    try:
        yield
    finally:
        _arrived = None
        sys.unraisablehook = hook
        for number, answer in before.items():
            signal.signal(number, answer)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _arrived  # noqa: PLW0603
    _arrived = signal.Signals(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


def _send_again(report: Callable[[sys.UnraisableHookArgs], Any], lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception went where none can be raised, such as a finalizer; report other errors."""
    if _arrived is None or type(lost.exc_value) not in _INTERRUPTS:
        report(lost)
        return
    signal.signal(_arrived, _interrupt)
    # Once this function has returned: what is raised within it would be lost as well.
    threading.Timer(0.01, os.kill, (os.getpid(), _arrived)).start()


def exit_code_of(error: BaseException, arguments: Mapping[str, Any]) -> int:
    """Report how a run ended, and return its exit code.

    Parameters
    ----------
    error : BaseException
        The error that ended the run.
    arguments : mapping
        Arguments of its command by name.

    Returns
    -------
    int
        1 data or validation error, 2 usage, 3 pre-flight, 129, 130 and 143 interrupted.
    """
    error = _first_told(error)
    # After a signal, every error is its consequence: an import that is interrupted in C fails as an ImportError.
    if (number := _arrived or _INTERRUPTS.get(type(error))) is not None:
        logger.error(_INTERRUPTED)
        return 128 + number
    if isinstance(error, NucproError):
        logger.error("%s", error, exc_info=error if error.shows_traceback or _manner.verbose else None)
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.errno != errno.ENOMEM:
        # An error of the system about a given path, or a file below it, is not a bug of nucpro.
        path = Path(os.fsdecode(error.filename))
        remedy = _OF_SYSTEM.get(error.errno or 0)
        if error.errno == errno.ENAMETOOLONG:
            remedy = _TOO_LONG if _is_named(path, arguments) else _TOO_LONG_OUTPUT
        said = problem_of(path, error) if remedy is None else f"{error.strerror}; {remedy}"
        logger.error("%s: %s", path, said)
        return PreflightError.exit_code if error.errno == errno.ENAMETOOLONG else 1
    if isinstance(error, OSError) and error.errno in REMEDIES_OF_LIMITS:
        logger.error("%s; %s", error.strerror, REMEDIES_OF_LIMITS[error.errno])
        return 1
    if isinstance(error, MemoryError) or any(said in str(error).lower() for said in _OF_MEMORY):
        logger.error("%s", _NO_MEMORY)
        return 1
    logger.error("Unexpected error, please report it: %s", error, exc_info=error)
    return 1


def _is_named(path: Path, arguments: Mapping[str, Any]) -> bool:
    """Whether a path was given to a command, or is below such a folder, and is not one of its output."""
    given = (value for name, value in arguments.items() if name != "output")
    paths = itertools.chain.from_iterable(one if isinstance(one, (list, tuple)) else [one] for one in given)
    return any(path.is_relative_to(one) for one in paths if isinstance(one, Path))


def _first_told(error: BaseException) -> BaseException:
    """Find the original interrupt or error, if cleaning up after it has raised another."""
    chain = [error]
    while (before := chain[-1].__context__) is not None:
        chain.append(before)
    interrupts = (one for one in chain if type(one) in _INTERRUPTS)
    told = next(itertools.dropwhile(lambda one: isinstance(one, OSError), chain), error)
    return next(interrupts, told if isinstance(told, NucproError) else error)
