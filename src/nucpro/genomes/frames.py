"""Genetic codes: the residue of each codon, on both strands.

The tables are NCBI's (https://www.ncbi.nlm.nih.gov/Taxonomy/Utils/wprintgc.cgi), codons in the order
TTT, TTC, TTA, TTG, TCT, … GGG. Where a codon may be a stop or a residue (codes 27, 28 and 31), it is the
residue, as in NCBI's own list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nucpro.errors import UsageError

__all__ = [
    "FRAME_NAMES",
    "STANDARD",
    "STOP",
    "UNKNOWN",
    "Chunks",
    "GeneticCode",
    "OpenFrames",
    "Place",
    "chunk_blocks",
    "chunks_of",
    "frame_bases",
    "frame_id",
    "genetic_code",
    "is_known",
    "open_frames",
    "place_of",
    "reverse_complement",
]

STANDARD = 1
"""Number of the standard code."""
STOP = ord("*")
"""Residue code of a stop codon."""
UNKNOWN = ord("X")
"""Residue code of a codon with an ambiguous base."""

_TABLES = {
    1: "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    2: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSS**VVVVAAAADDEEGGGG",
    3: "FFLLSSSSYY**CCWWTTTTPPPPHHQQRRRRIIMMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    4: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    5: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSSSSVVVVAAAADDEEGGGG",
    6: "FFLLSSSSYYQQCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    9: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    10: "FFLLSSSSYY**CCCWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    11: "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    12: "FFLLSSSSYY**CC*WLLLSPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    13: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSSGGVVVVAAAADDEEGGGG",
    14: "FFLLSSSSYYY*CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    15: "FFLLSSSSYY*QCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    16: "FFLLSSSSYY*LCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    21: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    22: "FFLLSS*SYY*LCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    23: "FF*LSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    24: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSSKVVVVAAAADDEEGGGG",
    25: "FFLLSSSSYY**CCGWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    26: "FFLLSSSSYY**CC*WLLLAPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    27: "FFLLSSSSYYQQCCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    28: "FFLLSSSSYYQQCCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    29: "FFLLSSSSYYYYCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    30: "FFLLSSSSYYEECC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    31: "FFLLSSSSYYEECCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    32: "FFLLSSSSYY*WCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    33: "FFLLSSSSYYY*CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSSKVVVVAAAADDEEGGGG",
}


@dataclass(frozen=True)
class GeneticCode:
    """Residues by codon index, ready for :meth:`bytes.translate`.

    The index of a codon is ``16 * first + 4 * second + third`` with T 0, C 1, A 2 and G 3; 64 and above
    mean that a base is ambiguous.

    Parameters
    ----------
    number : int
        NCBI's number; of codes with equal residues the smallest.
    forward : bytes of length 256
        Residue of the codon itself.
    reverse : bytes of length 256
        Residue of the codon's reverse complement.
    """

    number: int
    forward: bytes
    reverse: bytes


def is_known(number: int) -> bool:
    """Whether NCBI lists a genetic code of this number."""
    return number in _TABLES


@cache
def genetic_code(number: int) -> GeneticCode:
    """Genetic code by NCBI's number; codes with equal residues (1 and 11) are one object.

    Raises
    ------
    UsageError
        NCBI has no such code.
    """
    if number not in _TABLES:
        raise UsageError(f"genetic code {number} does not exist; NCBI lists {', '.join(map(str, _TABLES))}")
    residues = _TABLES[number]
    smallest = next(other for other, table in _TABLES.items() if table == residues)
    if smallest != number:
        return genetic_code(smallest)
    padding = bytes([UNKNOWN]) * (256 - 64)
    reverse = "".join(residues[_reverse_complement(codon)] for codon in range(64))
    return GeneticCode(number, residues.encode() + padding, reverse.encode() + padding)


def _reverse_complement(codon: int) -> int:
    first, second, third = codon >> 4, codon >> 2 & 3, codon & 3
    # In the order T, C, A, G the complement of a base is two places away.
    return (third ^ 2) << 4 | (second ^ 2) << 2 | (first ^ 2)


FRAME_NAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
"""What is appended to a chunk's id, by frame number."""

Residues = npt.NDArray[np.uint8]

_BASES = b"ACGTURYSWKMBDHVN"
_COMPLEMENT = bytes.maketrans(_BASES, b"TGCAAYRSWMKVHDBN")
_AMBIGUOUS = 64


def _place_values(weight: int) -> bytes:
    """Contribution of each base to a codon's index at a position of this weight."""
    values = bytearray([_AMBIGUOUS]) * 256
    for value, letters in enumerate((b"TU", b"C", b"A", b"G")):
        for letter in letters:
            values[letter] = value * weight
    return bytes(values)


# Three ambiguous bases add up to 192, so an index always fits one byte.
_FIRST, _SECOND, _THIRD = (_place_values(weight) for weight in (16, 4, 1))


@dataclass(frozen=True)
class OpenFrames:
    """Reading frames without a stop that have the same number of residues.

    Parameters
    ----------
    keys : ndarray of int64, shape (frames,)
        ``6 * chunk + frame``, chunks and frames counted from 0.
    residues : ndarray of uint8, shape (frames, residues)
        Translations in ASCII, one per row; X for a codon with an ambiguous base.
    """

    keys: npt.NDArray[np.int64]
    residues: Residues


def reverse_complement(bases: bytes) -> bytes:
    """Bases of the other strand, upper case, with the complements of IUPAC's ambiguity codes."""
    return bases.translate(_COMPLEMENT)[::-1]


def frame_bases(chunk: bytes, frame: int, residues: int) -> bytes:
    """Nucleotide slice that is written for a frame.

    It is ``strand[f - 1 : f + 3 * residues]`` for F1 to F3 and R1 to R3: one base more than the codons
    where the chunk has one, because published models were trained on that.

    Parameters
    ----------
    chunk : bytes
        Upper-case bases of the whole chunk.
    frame : int
        Frame number, 0 to 5.
    residues : int
        Whole codons of the frame.

    Returns
    -------
    bytes
        Bases, in upper case.
    """
    reverse, offset = divmod(frame, 3)
    strand = reverse_complement(chunk) if reverse else chunk
    return strand[offset : offset + 3 * residues + 1]


def open_frames(bases: bytes, offset: int, chunks: Chunks, code: GeneticCode) -> Iterator[OpenFrames]:
    """Translate chunks in six frames and keep the frames without a stop.

    Parameters
    ----------
    bases : bytes
        Upper-case part of the record that holds all the chunks.
    offset : int
        Position of this part in the record.
    chunks : Chunks
        Chunks to translate.
    code : GeneticCode
        Genetic code.

    Yields
    ------
    OpenFrames
        Frames of one residue count; a count may come more than once. Frames without a whole codon never come.
    """
    forward, reverse = _residues_by_position(bases, code)
    starts, lengths = chunks.starts - offset, chunks.ends - chunks.starts
    strands = ((0, forward, starts), (3, reverse, len(bases) - starts - lengths))
    for length in np.unique(lengths).tolist():
        same = lengths == length
        for first_frame, strand, begins in strands:
            for shift in range(3):
                count = (length - shift) // 3
                if count > 0:
                    keys = 6 * chunks.numbers[same] + (first_frame + shift)
                    yield _without_stop(strand, begins[same] + shift, keys, count)


def _residues_by_position(bases: bytes, code: GeneticCode) -> tuple[bytes, bytes]:
    """Residue of the codon that starts at each position, for the strand given and for the other one."""
    first, second, third = (
        np.frombuffer(bases.translate(values), dtype=np.uint8) for values in (_FIRST, _SECOND, _THIRD)
    )
    codons = (first[:-2] + second[1:-1] + third[2:]).tobytes()
    return codons.translate(code.forward), codons.translate(code.reverse)[::-1]


def _without_stop(
    strand: bytes, starts: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], count: int
) -> OpenFrames:
    # Row i is every third residue from position i on: a view, of which only the rows of frames are copied.
    windows = np.ndarray((len(strand) - 3 * count + 3, count), np.uint8, strand, strides=(1, 3))
    residues = windows[starts]
    is_open = (residues != STOP).all(axis=1)
    return OpenFrames(keys[is_open], residues[is_open])


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

    Returns
    -------
    str
        Such as ``NC_001416.1_chunk_2F3``.

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


_BLOCK_BASES = 1 << 20

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunks:
    """Chunks of one record, in its order.

    Parameters
    ----------
    numbers : ndarray of int64, shape (chunks,)
        Number of each chunk within its record, counted from 0 (ids count from 1).
    starts, ends : ndarray of int64, shape (chunks,)
        Positions in the record, counted from 0, ends exclusive.
    """

    numbers: Positions
    starts: Positions
    ends: Positions

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, which: slice | npt.NDArray[np.bool_]) -> Chunks:
        """Only the chunks that a slice or a mask names."""
        return Chunks(self.numbers[which], self.starts[which], self.ends[which])


def chunks_of(length: int, size: int) -> Chunks:
    """All chunks of a record.

    For a record of ``L`` bases and chunks of ``s``, ``n = ceil(L / s)`` chunks would be
    ``r = n * s - L`` bases too long together. With ``q = r // n`` and ``u = r - q * (n - 1)``, each of the
    first ``min(u, n - 1)`` steps from a chunk to the next goes back by ``q + 1`` bases and each later one
    by ``q``; the last chunk is clipped at the record's end. This is how VirNucPro's training data was cut.

    Parameters
    ----------
    length : int
        Bases of the record; 0 gives no chunk.
    size : int
        Bases of a full chunk, at least 1.

    Examples
    --------
    >>> chunks = chunks_of(1234, 500)
    >>> (chunks.ends - chunks.starts).tolist()
    [500, 500, 412]
    """
    count = -(-length // size)
    surplus = count * size - length
    back = surplus // max(count, 1)
    longer_steps = surplus - back * (count - 1)
    numbers = np.arange(count, dtype=np.int64)
    starts = numbers * (size - back) - np.minimum(numbers, longer_steps)
    return Chunks(numbers, starts, np.minimum(starts + size, length))


def chunk_blocks(length: int, size: int) -> Iterator[Chunks]:
    """Yield the chunks of a record in runs of about a million bases, whatever the length of the record."""
    chunks = chunks_of(length, size)
    step = max(1, _BLOCK_BASES // size)
    for first in range(0, len(chunks), step):
        yield chunks.take(slice(first, first + step))
