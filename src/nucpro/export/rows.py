"""The rows of one merged file, with what their ids tell.

Vectors come from :mod:`nucpro.store`, categories from the layout; rows go to :mod:`nucpro.export.formats`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucpro.dataset.frames import FRAME_NAMES
from nucpro.layout import FilePair
from nucpro.store import read_merged

__all__ = ["Place", "Rows", "place_of", "rows_of"]

_FRAME_ID = re.compile(rf"(.+)_chunk_([1-9][0-9]{{0,8}})({'|'.join(FRAME_NAMES)})")


class Place(NamedTuple):
    """Where a reading frame comes from.

    Parameters
    ----------
    record : str or None
        Accession and version of the source genome's record; None where an id has another form.
    chunk : int or None
        Number of the chunk in that record, counted from 1.
    frame : str or None
        F1 to F3, or R1 to R3 for the reverse complement.
    """

    record: str | None
    chunk: int | None
    frame: str | None


@dataclass(frozen=True, eq=False)
class Rows:
    """One merged file as rows.

    Parameters
    ----------
    source : str
        Path of the merged file below the data folder.
    digest : str
        SHA-256 of its bytes, in hexadecimal.
    ids : list of str
        One a row.
    places : list of Place
        What the ids tell.
    label : int
        1 for viral, 0 for host.
    category : str
        Category of the file, such as ``viral`` or ``bacteria``.
    vectors : ndarray of float32, shape [N, D]
        DNA columns first, then protein.
    """

    source: str
    digest: str
    ids: list[str]
    places: list[Place]
    label: int
    category: str
    vectors: NDArray[np.float32]


def place_of(name: str) -> Place:
    """Take an id of the form ``RECORD_chunk_NFRAME`` apart, as :mod:`nucpro.dataset` makes it.

    Examples
    --------
    >>> place_of("NC_001416.1_chunk_2F3")
    Place(record='NC_001416.1', chunk=2, frame='F3')
    >>> place_of("my_protein")
    Place(record=None, chunk=None, frame=None)
    """
    match = _FRAME_ID.fullmatch(name)
    return Place(match[1], int(match[2]), match[3]) if match else Place(None, None, None)


def rows_of(pair: FilePair) -> Rows:
    """Read the merged file of a pair.

    Raises
    ------
    StoreError
        It is damaged, or no merged file.
    """
    merged = read_merged(pair.merged)
    return Rows(
        source=pair.relative(pair.merged),
        digest=merged.digest,
        ids=merged.ids,
        places=[place_of(name) for name in merged.ids],
        label=merged.label,
        category=pair.category or "",
        vectors=merged.vectors,
    )
