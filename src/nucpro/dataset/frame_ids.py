"""Ids of reading frames: made where frames are written, taken apart where somebody asks for their genome."""

from __future__ import annotations

import re
from typing import NamedTuple

from nucpro.dataset.frames import FRAME_NAMES

__all__ = ["Place", "frame_id", "place_of"]

_FORM = re.compile(rf"(.+)_chunk_([1-9][0-9]{{0,8}})({'|'.join(FRAME_NAMES)})")


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


def frame_id(record: str, number: int, frame: int) -> str:
    """Id of a frame.

    Parameters
    ----------
    record : str
        Name of the record.
    number : int
        Number of the chunk, counted from 0.
    frame : int
        Number of the frame, 0 to 5.

    Examples
    --------
    >>> frame_id("NC_001416.1", 1, 2)
    'NC_001416.1_chunk_2F3'
    """
    return f"{record}_chunk_{number + 1}{FRAME_NAMES[frame]}"


def place_of(name: str) -> Place:
    """Take an id apart.

    Examples
    --------
    >>> place_of("NC_001416.1_chunk_2F3")
    Place(record='NC_001416.1', chunk=2, frame='F3')
    >>> place_of("my_protein")
    Place(record=None, chunk=None, frame=None)
    """
    match = _FORM.fullmatch(name)
    return Place(match[1], int(match[2]), match[3]) if match else Place(None, None, None)
