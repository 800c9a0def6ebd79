"""Every error that nucpro raises on purpose.

    NucproError                 exit code 1
    ├── UsageError              exit code 2: the call itself is wrong
    ├── PreflightError          exit code 3: found before anything was touched; carries all problems
    │   └── LockedError         another run holds the data folder
    ├── DataError               a file holds something wrong
    │   ├── FastaError          a FASTA file or one of its records
    │   ├── StoreError          a .pt file is damaged, hostile or of another schema
    │   ├── DimensionError      a vector or matrix of the wrong width
    │   ├── MergeError          two sides of a file pair do not fit
    │   └── ValidationError     outputs on disk that are not what they must be
    ├── ModelError              a checkpoint that cannot be found, read or trusted
    ├── ExtractionError         the encoder failed on a record
    └── WorkerError             a worker process was killed

A message says what failed and where, the actual value, what is allowed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence

from nucpro.text import printable

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
    "StoreError",
    "UsageError",
    "ValidationError",
    "WorkerError",
]


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
        One complete message a problem, in the order in which they are shown.
    """

    exit_code = 3

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = f"{count} problem{'s' if count != 1 else ''} found; nothing was changed:"
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[PreflightError], tuple[tuple[str, ...]]]:
        """Rebuild from the problems when the error comes back from a worker process."""
        return type(self), (self.problems,)


class LockedError(PreflightError):
    """Another run holds the data folder."""


class DataError(NucproError):
    """A file holds something wrong."""


class FastaError(DataError):
    """A FASTA file, or one record of it, cannot be used."""


class StoreError(DataError):
    """A ``.pt`` file is damaged, hostile, or not of the schema that its name promises."""


class DimensionError(DataError):
    """A vector or matrix has another width than it must have.

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
    """The nucleotide and the protein side of a file pair do not fit together."""


class ValidationError(DataError):
    """Outputs on disk that are not what they must be."""


class ModelError(NucproError):
    """A model checkpoint that cannot be found, read or trusted."""


class ExtractionError(NucproError):
    """The encoder failed on a record, or gave a value that is not finite."""

    shows_traceback = True


class WorkerError(NucproError):
    """A worker process was killed."""
