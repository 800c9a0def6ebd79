"""What a person or a program sees: messages, the log file, progress and the answer to an interrupt."""

from __future__ import annotations

import errno
import io
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from nucpro.errors import NucproError, PreflightError, StoreError, human_size, human_time, printable
from nucpro.formats.opening import open_kept, problem_of
from nucpro.progress import BYTES, Progress, Show, silent

__all__ = [
    "PROGRESS",
    "Manner",
    "Steps",
    "Terminated",
    "console",
    "exit_code_of",
    "say",
    "showing",
    "told_end",
]

_INTERRUPTED = "Interrupted. Finished work is kept; run the same command again to continue."

_NO_MEMORY = (
    "Out of memory: this machine has too little free for the work (a file pair needs about 0.3 GB, the model its "
    "weights); free memory and run the same command again: finished work is kept"
)
_OF_SYSTEM = {
    errno.ENAMETOOLONG: "name another place with --output, or shorten the name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
    errno.ELOOP: "a link leads back to itself: correct or remove it",
}
_NOTHING = logging.CRITICAL + 1

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {amount}, {time}"
_SHORT = 10.0
"""Seconds."""
_COUNT = "{desc}: {amount}, {time}"


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt no ``Exception``, so that nothing catches it by accident."""


BAR, LINES, JSON = "bar", "lines", "json"
PROGRESS = (BAR, LINES, JSON)
"""How progress can be shown: drawn on standard error, as lines among the messages, or for programs."""


@dataclass(frozen=True)
class Manner:
    """How much is said, and in which form.

    Parameters
    ----------
    progress : str, optional
        One of :data:`PROGRESS`; by default a bar where standard error is a terminal, and lines elsewhere.
    quiet : bool
        Only warnings, errors and the answer of a command.
    verbose : bool
        Also what helps to find a fault: the time of each message, details, and where an error arose.
    """

    progress: str | None = None
    quiet: bool = False
    verbose: bool = False


_manner = Manner()


@contextmanager
def showing() -> Iterator[Show]:
    """Give what shows the progress of a command, and take it from the screen again at the end of a ``with`` block."""
    stream = sys.stderr
    form = _manner.progress or (BAR if stream is not None and stream.isatty() else LINES)
    if _manner.quiet:
        yield silent
    elif form == LINES:
        # Who did not ask for lines should not read them of what takes no time.
        yield Steps(0 if _manner.progress else _SHORT).show
    elif stream is None:
        yield silent
    elif form == JSON:
        yield lambda progress: _write_json(event="progress", **asdict(progress))
    else:
        with _bar() as bar:
            yield bar.show


def _bar() -> Any:
    """Make a bar: progress of one part of a command after the other; gone at the end, as the last line is the result.

    Nothing is drawn before its first ``show``.
    """
    # Imported where something is drawn: it takes longer than a help text.
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self._progress = Progress(0, None)
            super().__init__(bar_format=_BAR, dynamic_ncols=True, delay=1e-9, leave=False, miniters=1)

        @property
        def format_dict(self) -> dict[str, Any]:
            """Fields of the bar's format."""
            fields = super().format_dict
            # Elapsed time where none can be told that is left; both are too long for a narrow terminal.
            shown = _left(self._progress) or self.format_interval(fields["elapsed"])
            return {**fields, "amount": _amount(self._progress), "time": shown}

        def show(self, progress: Progress) -> None:
            """Move to where the command is."""
            is_new = _part(progress) != _part(self._progress)
            self._progress = progress
            if is_new or progress.done < self.n:
                self.set_description_str(progress.message, refresh=False)
                self.bar_format = _COUNT if progress.total is None else _BAR
                self.reset(progress.total)
                self.initial = self.n = progress.done
            self.update(progress.done - self.n)
            self.refresh()

    return Bar()


def _above_bar(stream: TextIO | None = None) -> AbstractContextManager[object]:
    """Take the bar away while something is written, where there is one."""
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return nullcontext() if tqdm is None else tqdm.external_write_mode(file=stream)


class Steps:
    """Progress as lines: one when a part of a command begins, and one for each tenth of it that is done.

    Parameters
    ----------
    patience : float
        Seconds in which nothing is said of a part.
    clock : callable
        Seconds of a clock that only goes forward.
    """

    def __init__(self, patience: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._part: object = None
        self._step = -1
        self._began = 0.0

    def show(self, progress: Progress) -> None:
        """Say where the command is, unless that was said."""
        if self._part != _part(progress):
            self._part, self._step, self._began = _part(progress), -1, self._clock()
        # What has no total is told whenever it has doubled.
        step = progress.done.bit_length() if not progress.total else 10 * progress.done // progress.total
        if step != self._step and self._clock() - self._began >= self._patience:
            self._step = step
            line = ", ".join(filter(None, (_amount(progress), _left(progress))))
            # Nobody listens any more, or the disk behind a redirection is full: the run goes on without.
            with suppress(OSError):
                print(printable(f"{progress.message}: {line}"), flush=True)


def _part(progress: Progress) -> tuple[str, int | None, str]:
    """What two values have in common that tell of the same part of a command."""
    return progress.message, progress.total, progress.unit


def _amount(progress: Progress) -> str:
    done, total, unit = progress.done, progress.total, progress.unit
    if unit == BYTES:
        return human_size(done) + ("" if total is None else f" of {human_size(total)}")
    return f"{done} {unit}" if total is None else f"{done} of {total} {unit}"


def _left(progress: Progress) -> str:
    if progress.seconds_left is None or progress.done == progress.total:
        return ""
    return f"{human_time(progress.seconds_left, decimals=0)} left"


def _write_json(**fields: object) -> None:
    """Write one line for programs, where there is standard error and somebody who reads it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(json.dumps(fields), file=sys.stderr, flush=True)


class _Plain(logging.Formatter):
    """Messages, tracebacks included, in which no name of a record or file can steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Lines(logging.Handler):
    """Messages as plain lines on standard output, above the bar where there is one; problems on standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING if _manner.quiet else logging.NOTSET)
        self.setFormatter(_Plain("%(asctime)s %(message)s" if _manner.verbose else None, "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        is_problem = record.levelno >= logging.WARNING
        if is_problem and _manner.progress == JSON:
            _write_json(event="message", level=record.levelname.lower(), text=self.format(record))
            return
        stream = sys.stderr if is_problem else sys.stdout
        if stream is None:
            return
        try:
            for line in self.format(record).split("\n"):
                with _above_bar(stream):
                    stream.write(f"{line}\n")
        except OSError:
            # Nobody listens any more, or the disk behind a redirection is full: the run goes on without.
            return


class _LogFile(logging.FileHandler):
    """The log file; when it cannot be written any more, that is said once, and the run goes on without it."""

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(
            io.BufferedWriter(open_kept(Path(self.baseFilename), append=True)), encoding="utf-8"
        )

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
                    f"Warning: {self.baseFilename}: cannot be written any more ({reason}); only the log is affected"
                )


@contextmanager
def console(log_file: Path | None = None, manner: Manner | None = None) -> Iterator[None]:
    """Show nucpro's messages, and also write them to a log file, for the length of a ``with`` block.

    SIGTERM raises :class:`Terminated` meanwhile.
    """
    global _manner  # noqa: PLW0603 - the streams of a process are one for all, and so is what goes to them
    _write_each_line()
    before = _manner, signal.signal(signal.SIGTERM, _terminate)
    _manner = manner or Manner()
    logger = logging.getLogger("nucpro")
    handlers: list[logging.Handler] = []
    level = logger.level
    logger.setLevel(logging.DEBUG if _manner.verbose else logging.INFO)
    try:
        # One after the other: what is wrong with the log is shown by the first.
        for handler in itertools.chain([_Lines()], _log_files(log_file)):
            handlers.append(handler)
            logger.addHandler(handler)
        yield
    finally:
        _manner, answer = before
        signal.signal(signal.SIGTERM, answer)
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def told_end(code: int) -> int:
    """Tell programs how a command ended, with its exit code; gives the code back."""
    if _manner.progress == JSON:
        _write_json(event="end", exit_code=code)
    return code


def _write_each_line() -> None:
    """Write a line when it is said, also to a pipe or a file, where Python would keep it until there are many.

    What the encoding lacks is shown as escapes: no name of a file may stop a run.
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
        # A folder that is missing, or cannot be written, is one of the problems that pre-flight reports.
        if os.path.lexists(path):
            logging.getLogger("nucpro").warning("Warning: %s; this run writes no log", error)
        return
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    yield handler


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
        with _above_bar():
            print(printable(line), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(
            f"standard output: cannot be written ({error.strerror}), so the output is incomplete; free disk space "
            "there, then run again: finished work is kept"
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
        logger.error("%s", error, exc_info=error if error.shows_traceback or _manner.verbose else None)
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        # What the system says of a path that was given, or of what lies below it, is no fault of the program.
        path = Path(os.fsdecode(error.filename))
        remedy = _OF_SYSTEM.get(error.errno or 0)
        said = problem_of(path, error) if remedy is None else f"{error.strerror}; {remedy}"
        logger.error("%s: %s", path, said)
        return PreflightError.exit_code if error.errno == errno.ENAMETOOLONG else 1
    if isinstance(error, MemoryError):
        logger.error("%s", _NO_MEMORY)
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
