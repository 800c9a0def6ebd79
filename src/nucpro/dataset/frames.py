"""The six reading frames of chunks.

Bases and chunk positions come in; reading frames without a stop go out, all frames of equal residue count
as the rows of one matrix. Nothing is translated twice: the residue of every position of a block is looked
up once for each strand, and a frame is every third of them.

Frames are numbered 0 to 5 for F1, F2, F3 (the strand as given) and R1, R2, R3 (its reverse complement,
counted from the chunk's end). The key of a frame is ``6 * chunk + frame``: keys sort as files are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucpro.dataset.chunks import Chunks
from nucpro.dataset.codes import STOP, GeneticCode

__all__ = ["FRAME_NAMES", "OpenFrames", "frame_bases", "open_frames", "reverse_complement"]

FRAME_NAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
"""What is appended to a chunk's id, by frame number."""

Residues = npt.NDArray[np.uint8]

_BASES = b"ACGTURYSWKMBDHVN"
_COMPLEMENT = bytes.maketrans(_BASES, b"TGCAAYRSWMKVHDBN")
_AMBIGUOUS = 64


def _place_values(weight: int) -> bytes:
    """Share of a codon's index that each letter has in a place of this weight."""
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
        Translations in ASCII, one a row; X for a codon with an ambiguous base.
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
