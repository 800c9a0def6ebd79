"""The reading frames that are scored: every frame without a stop, of all six, of every chunk of a unit.

A unit comes in (:mod:`nucpro.prediction.contigs`); nucleotides and translations go to the encoders. The rules
are those of the training data (:mod:`nucpro.dataset`) but for what annotation decides there: nobody knows the
proteins of a contig, so no frame is looked for in them, and no chunk is left out for an ambiguous base.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucpro.dataset.chunks import Chunks
from nucpro.dataset.codes import STANDARD, UNKNOWN, genetic_code
from nucpro.dataset.frame_ids import frame_id
from nucpro.dataset.frames import OpenFrames, frame_bases, open_frames
from nucpro.prediction.contigs import Unit

__all__ = ["IntVector", "UnitFrames", "frames_of"]

_MOST_UNKNOWN = 0.5
"""Share of X above which a translation says nothing: a run of N translates to a frame without a stop."""

IntVector = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UnitFrames:
    """Frames of one unit, by chunk and then F1, F2, F3, R1, R2, R3.

    Parameters
    ----------
    chunks : ndarray of int64, shape (frames,)
        Chunk of each frame, counted from 0 within the unit.
    frames : ndarray of int64, shape (frames,)
        Number of each frame, 0 to 5.
    ids : list of str
        ``RECORD_chunk_NFK``, as in the training data.
    nucleotides, proteins : list of bytes
        See :func:`nucpro.dataset.frames.frame_bases`; a protein is the whole translation.
    unknown : int
        Frames without a stop that are left out because most of their residues are X.
    """

    chunks: IntVector
    frames: IntVector
    ids: list[str]
    nucleotides: list[bytes]
    proteins: list[bytes]
    unknown: int

    def __len__(self) -> int:
        return len(self.ids)


def frames_of(unit: Unit) -> UnitFrames:
    """Find the frames of a unit that are scored.

    Parameters
    ----------
    unit : Unit
        Its letters may hold ambiguous bases: a codon with one is translated to X. U counts as T.
    """
    # All records of a unit are translated together: a call for each of many short ones would take far longer.
    bases = b"".join(piece.bases for piece in unit.pieces).replace(b"U", b"T")
    places = _places(unit)
    known: list[tuple[int, bytes]] = []
    unknown = 0
    for group in open_frames(bases, 0, places, genetic_code(STANDARD)) if len(places) else ():
        says_something = _says_something(group)
        unknown += len(group.keys) - int(says_something.sum())
        proteins = map(bytes, group.residues[says_something])
        known += zip(group.keys[says_something].tolist(), proteins, strict=True)
    known.sort()
    keys = np.array([key for key, _ in known], dtype=np.int64)
    chunks, frames = np.divmod(keys, 6)
    nucleotides = [
        frame_bases(bases[places.starts[key // 6] : places.ends[key // 6]], key % 6, len(protein))
        for key, protein in known
    ]
    ids = _ids(unit, chunks, frames)
    return UnitFrames(chunks, frames, ids, nucleotides, [protein for _, protein in known], unknown)


def _says_something(group: OpenFrames) -> npt.NDArray[np.bool_]:
    share: npt.NDArray[np.float64] = (group.residues == UNKNOWN).mean(axis=1)
    return share <= _MOST_UNKNOWN


def _places(unit: Unit) -> Chunks:
    """Chunks of a unit by their positions in the joined letters of its pieces, numbered from 0."""
    starts, ends, offset = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for piece in unit.pieces:
        if len(piece.chunks):
            shift = offset - piece.chunks.starts[0]
            starts.append(piece.chunks.starts + shift)
            ends.append(piece.chunks.ends + shift)
            offset += len(piece.bases)
    return Chunks(np.arange(unit.chunks), np.concatenate(starts), np.concatenate(ends))


def _ids(unit: Unit, chunks: IntVector, frames: IntVector) -> list[str]:
    places = [(piece.record, number) for piece in unit.pieces for number in piece.chunks.numbers.tolist()]
    named = ((*places[chunk], frame) for chunk, frame in zip(chunks.tolist(), frames.tolist(), strict=True))
    return [frame_id(record, number, frame) for record, number, frame in named]
