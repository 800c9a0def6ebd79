"""What a user can choose about a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from nucpro.dataset.identification import CodeChoice
from nucpro.errors import UsageError
from nucpro.processors import processors_allowed

__all__ = ["DatasetOptions"]

_SHORTEST = 3


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of one run of ``nucpro dataset``.

    Parameters
    ----------
    length : int
        Bases of a full chunk: 300 and 500 are what published models were trained on, at least 3.
    genetic_code : {"standard", "auto"}
        ``standard`` translates every frame by the standard code, as VirNucPro did; ``auto`` by the code that
        each CDS names (``/transl_table``).
    workers : int
        Processes; each works on one pair of files at a time. By default one for each core.
    replace : bool
        Make files again that were made with other options, or that nothing is recorded about.

    Raises
    ------
    UsageError
        A value is outside what is allowed.
    """

    length: int = 300
    genetic_code: CodeChoice = "standard"
    workers: int = field(default_factory=processors_allowed)
    replace: bool = False

    def __post_init__(self) -> None:
        if self.length < _SHORTEST:
            raise UsageError(f"length {self.length} is too short; a chunk needs at least {_SHORTEST} bases")
        if self.genetic_code not in get_args(CodeChoice):
            allowed = " or ".join(get_args(CodeChoice))
            raise UsageError(f"genetic code {self.genetic_code!r} is not allowed; use {allowed}")
        if self.workers < 1:
            raise UsageError(f"{self.workers} workers are not allowed; use at least 1")
