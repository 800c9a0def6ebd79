"""Errors, and safe display of external text: names of records and files must not control or flood a terminal.

Ids and file names come from :mod:`nucpro.formats.fasta`, :mod:`nucpro.folder.paths`, :mod:`nucpro.formats`
and :mod:`nucpro.genomes`, which refuse those that are not :func:`is_plain`. Messages pass through
:func:`printable` at the two places of output: :class:`nucpro.errors.NucproError` and
:mod:`nucpro.cli.console`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "DataError",
    "DimensionError",
    "ExtractionError",
    "FastaError",
    "LockedError",
    "MergeError",
    "ModelError",
    "NucproError",
    "PreflightError",
    "RecordError",
    "StoreError",
    "UsageError",
    "ValidationError",
    "WorkerError",
    "as_preflight",
    "counted",
    "first_few",
    "human_size",
    "human_time",
    "is_plain",
    "printable",
    "reason_of",
    "shortened",
]

_LONGEST_REASON = 300
# Controls (escape sequences begin with one), line and paragraph separators, marks that turn the direction of
# writing, and halves of characters, which stand for bytes of file names that are not UTF-8.
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
)


def is_plain(name: str) -> bool:
    """Whether a name can be shown unchanged in one line: without control characters, line ends or text direction marks.

    Parameters
    ----------
    name : str
        A name.

    Returns
    -------
    bool
        Whether it needs no escape.
    """
    return _HIDDEN.search(name) is None


def printable(text: str) -> str:
    r"""Text with everything that is not plain written as an escape (``\x1b``); line feeds stay.

    Idempotent.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Text without control characters.
    """
    return "\n".join(_HIDDEN.sub(_escaped, line) for line in text.split("\n"))


def first_few(names: Sequence[str], most: int) -> str:
    """Names in one line: the first, and how many more there are.

    Parameters
    ----------
    names : sequence of str
        All names.
    most : int
        How many to show.

    Returns
    -------
    str
        The names, separated by commas.

    Examples
    --------
    >>> first_few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def reason_of(error: BaseException) -> str:
    """First line of the message of a library's error, shortened: it may quote what a file holds, or say where it was.

    Parameters
    ----------
    error : BaseException
        Raised by code that is not ours.

    Returns
    -------
    str
        At most 300 characters, and ``…`` if there were more; the name of the error if it has no message.
    """
    return shortened(str(error).strip().partition("\n")[0] or type(error).__name__, _LONGEST_REASON)


def shortened(text: str, most: int) -> str:
    """Beginning of a text, with ``…`` where the rest was.

    Parameters
    ----------
    text : str
        Any text.
    most : int
        Characters to keep.

    Returns
    -------
    str
        The text itself if it is no longer than that.
    """
    return text if len(text) <= most else f"{text[:most]}…"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class NucproError(Exception):
    """Base class of all errors that nucpro raises on purpose."""

    exit_code = 1
    shows_traceback = False

    def __str__(self) -> str:
        """Message in which nothing can steer a terminal, whatever names of records and files it carries."""
        return printable(super().__str__())


class UsageError(NucproError):
    """The call itself is wrong: an unknown option, or options that contradict each other."""

    exit_code = 2


class PreflightError(NucproError):
    """Problems found before a model was loaded or a file was touched.

    Parameters
    ----------
    problems : sequence of str
        One complete message per problem, in display order.
    """

    exit_code = 3

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        title = f"{counted(len(self.problems), 'problem')} found; nothing was changed:"
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[PreflightError], tuple[tuple[str, ...]]]:
        """Rebuild from the problems when the error comes back from a worker process."""
        return type(self), (self.problems,)


@contextmanager
def as_preflight(kind: type[NucproError]) -> Iterator[None]:
    """Report errors of one kind in a ``with`` block, before anything is changed, as pre-flight problems.

    Parameters
    ----------
    kind : type
        Class of errors to report so.

    Yields
    ------
    None
        While these errors are converted.

    Raises
    ------
    PreflightError
        In place of an error of `kind`, with its message.
    """
    try:
        yield
    except kind as error:
        raise PreflightError([str(error)]) from error


class LockedError(PreflightError):
    """Another run has locked the data folder."""


class DataError(NucproError):
    """The content of a file is invalid."""


class FastaError(DataError):
    """A FASTA file, or one record of it, cannot be used."""


class StoreError(DataError):
    """A ``.pt`` file is damaged, hostile, or does not follow the schema of its name."""


class RecordError(DataError):
    """A state file of nucpro is damaged or invalid."""


class DimensionError(DataError):
    """A vector or matrix has the wrong width.

    Parameters
    ----------
    expected_dim, actual_dim : int or tuple of int
        The width or shape that is allowed, and the one that was found.
    tensor_name : str, optional
        What was measured.
    location : str, optional
        The file, or the file and record, that it belongs to.
    """

    def __init__(
        self,
        expected_dim: int | tuple[int, ...],
        actual_dim: int | tuple[int, ...],
        tensor_name: str | None = None,
        location: str | None = None,
    ) -> None:
        self.expected_dim = expected_dim
        self.actual_dim = actual_dim
        self.tensor_name = tensor_name
        self.location = location
        parts = [location, tensor_name, f"expected {expected_dim}, found {actual_dim}"]
        super().__init__(": ".join(part for part in parts if part))

    def __reduce__(
        self,
    ) -> tuple[
        type[DimensionError],
        tuple[int | tuple[int, ...], int | tuple[int, ...], str | None, str | None],
    ]:
        """Rebuild from the parts when the error comes back from a worker process."""
        return type(self), (self.expected_dim, self.actual_dim, self.tensor_name, self.location)


class MergeError(DataError):
    """The DNA and protein files of a pair do not match."""


class ValidationError(DataError):
    """Outputs on disk that failed validation."""


class ModelError(NucproError):
    """A model checkpoint that cannot be found, read or trusted."""


class ExtractionError(NucproError):
    """The encoder failed on a record, or returned a value that is not finite."""

    shows_traceback = True


class WorkerError(NucproError):
    """A worker process was killed."""


_LINES_SHOWN = 10


_ADDED_ES = ("s", "x", "z", "ch", "sh")


def counted(number: int, noun: str, form: str = "") -> str:
    """A number with its noun, in the singular or the plural.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        In the singular; its last word takes the plural.
    form : str
        Format of the number, such as ``,`` for separators of thousands.

    Returns
    -------
    str
        Such as ``1 file`` or ``2 files``.

    Examples
    --------
    >>> counted(1, "merged file"), counted(2, "batch"), counted(0, "family")
    ('1 merged file', '2 batches', '0 families')
    """
    if number != 1:
        if noun.endswith("y") and noun[-2:-1] not in "aeiou":
            noun = f"{noun[:-1]}ies"
        else:
            noun += "es" if noun.endswith(_ADDED_ES) and not noun.endswith("epoch") else "s"
    return f"{number:{form}} {noun}"


def human_size(size: float) -> str:
    """Bytes as ``512 B``, ``17.4 kB``, ``3.0 MB`` or ``2,480 GB``.

    Parameters
    ----------
    size : float
        Bytes.

    Returns
    -------
    str
        The size with its unit.

    Examples
    --------
    >>> human_size(17_408), human_size(999_960), human_size(0)
    ('17.4 kB', '1.0 MB', '0 B')
    """
    if abs(size) < 1000:
        return f"{size:.0f} B"
    size, unit = size / 1000, "kB"
    for larger in ("MB", "GB"):
        if abs(size) >= 999.95:
            size, unit = size / 1000, larger
    return f"{size:,.0f} {unit}" if abs(size) >= 99.95 else f"{size:.1f} {unit}"


def human_time(seconds: float, decimals: int = 1) -> str:
    """``2 h 03 min``, ``4 min 05 s`` or ``6.7 s``; without decimals, as for a time that is left, ``7 s``.

    Parameters
    ----------
    seconds : float
        Duration.
    decimals : int
        Decimal places of seconds below a minute.

    Returns
    -------
    str
        The duration with its units.
    """
    if round(seconds, decimals) < 60:
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def limited(lines: list[str]) -> list[str]:
    if len(lines) <= _LINES_SHOWN:
        return lines
    return [*lines[:_LINES_SHOWN], f"… and {len(lines) - _LINES_SHOWN} more like these"]
