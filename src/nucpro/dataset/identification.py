"""Reading frames of a record that occur in its own proteins.

One record with its proteins comes in (:mod:`nucpro.dataset.proteins`); the frames that belong to the data
set go out. "Identified" is VirNucPro's word for them, and part of the names of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nucpro.dataset.chunks import Chunks, chunk_blocks, chunks_of
from nucpro.dataset.codes import STANDARD, GeneticCode, genetic_code
from nucpro.dataset.frame_ids import frame_id
from nucpro.dataset.frames import OpenFrames, frame_bases, open_frames
from nucpro.dataset.occurrence import occurring
from nucpro.dataset.proteins import Proteins
from nucpro.errors import FastaError
from nucpro.fasta import NUCLEOTIDES

__all__ = ["CodeChoice", "FrameRecord", "Identified", "frame_records", "identify"]

CodeChoice = Literal["standard", "auto"]
"""``standard``: all frames by the standard code; ``auto``: by the code of each CDS."""

_PLAIN = b"ACGT"
_ALLOWED = NUCLEOTIDES.encode()


@dataclass(frozen=True)
class FrameRecord:
    """One record of the two output files.

    Parameters
    ----------
    name : str
        ``RECORD_chunk_NFK``: chunks count from 1, FK is F1 to F3 or R1 to R3.
    nucleotides, protein : str
        See :func:`nucpro.dataset.frames.frame_bases`; the protein is the whole translation.
    """

    name: str
    nucleotides: str
    protein: str


@dataclass(frozen=True)
class Identified:
    """Frames of one record that are kept, with what became of all others.

    Parameters
    ----------
    kept : dict of int to bytes
        Translations by key (``6 * chunk + frame``, see :mod:`nucpro.dataset.frames`).
    chunks, ambiguous_chunks : int
        All chunks, and those left out because of an ambiguous base.
    frames, frames_with_stop, frames_not_in_cds : int
        Frames of the other chunks; those of them with a stop or without a whole codon; those without a stop
        that no protein holds.
    lost_frames : int
        Frames that the code of their CDS would keep and the standard code does not.
    """

    kept: dict[int, bytes]
    chunks: int
    ambiguous_chunks: int
    frames: int
    frames_with_stop: int
    frames_not_in_cds: int
    lost_frames: int


def identify(name: str, bases: str, proteins: Proteins, size: int, choice: CodeChoice) -> Identified:
    """Find the frames of a record that belong to the data set.

    A frame is kept if its chunk has no ambiguous base, it has no stop, and its whole translation occurs in
    a translation of the same record.

    Parameters
    ----------
    name : str
        Record, for messages.
    bases : str
        Its sequence, in any case.
    proteins : dict of int to bytes
        Its translations by genetic code.
    size : int
        Bases of a full chunk.
    choice : {"standard", "auto"}
        Whose genetic code is used.

    Raises
    ------
    FastaError
        A letter is no nucleotide code.
    """
    searches = _searches(proteins, choice)
    # What other codes would keep is only needed to count what the standard code loses.
    others = [search for search in _searches(proteins, "auto") if search.code.number != STANDARD]
    others = others if choice == "standard" else []
    chunks = clean_chunks = 0
    for block in chunk_blocks(len(bases), size):
        offset, part = _part(name, bases, block)
        clean = _without_ambiguous(part, offset, block)
        chunks, clean_chunks = chunks + len(block), clean_chunks + len(clean)
        for search in searches + others if len(clean) else []:
            search.add(part, offset, clean)
    kept = _kept(searches)
    is_open = len(np.unique(np.concatenate([search.open_keys() for search in searches])))
    return Identified(
        kept=kept,
        chunks=chunks,
        ambiguous_chunks=chunks - clean_chunks,
        frames=6 * clean_chunks,
        frames_with_stop=6 * clean_chunks - is_open,
        frames_not_in_cds=is_open - len(kept),
        lost_frames=len(_kept(others).keys() - kept.keys()),
    )


class _Search:
    """Frames without a stop by one genetic code, and the proteins that they are looked for in."""

    def __init__(self, code: GeneticCode, text: bytes) -> None:
        self.code = code
        self._text = text
        self._frames: dict[int, list[OpenFrames]] = {}

    def add(self, part: bytes, offset: int, chunks: Chunks) -> None:
        for frames in open_frames(part, offset, chunks, self.code):
            self._frames.setdefault(frames.residues.shape[1], []).append(frames)

    def open_keys(self) -> npt.NDArray[np.int64]:
        keys = [frames.keys for same in self._frames.values() for frames in same]
        return np.concatenate([np.empty(0, dtype=np.int64), *keys])

    def kept(self) -> Iterator[tuple[int, bytes]]:
        for same in self._frames.values():
            keys = np.concatenate([frames.keys for frames in same])
            residues = np.concatenate([frames.residues for frames in same])
            occurs = occurring(residues, self._text)
            yield from zip(keys[occurs].tolist(), map(bytes, residues[occurs]), strict=True)


def _searches(proteins: Proteins, choice: CodeChoice) -> list[_Search]:
    texts: dict[int, list[bytes]] = {}
    for number, text in proteins.items():
        code = STANDARD if choice == "standard" else genetic_code(number).number
        texts.setdefault(code, []).append(text)
    return [_Search(genetic_code(code), b"\n".join(texts[code])) for code in sorted(texts)]


def _kept(searches: list[_Search]) -> dict[int, bytes]:
    """Collect kept frames by key; of codes that keep the same frame, the smallest number translates it."""
    kept: dict[int, bytes] = {}
    for search in searches:
        for key, residues in search.kept():
            kept.setdefault(key, residues)
    return kept


def _part(name: str, bases: str, chunks: Chunks) -> tuple[int, bytes]:
    """Upper-case bases that a run of chunks covers, with their position in the record."""
    start, end = int(chunks.starts[0]), int(chunks.ends[-1])
    # Letters outside ASCII become question marks, which are refused like any other foreign letter.
    part = bases[start:end].encode("ascii", "replace").upper()
    foreign = part.translate(None, _ALLOWED)
    if foreign:
        position = start + part.index(foreign[0])
        raise FastaError(
            f"record {name} has {bases[position]!r} at position {position + 1}; "
            f"a nucleotide sequence may hold {NUCLEOTIDES} in either case: correct or remove the record"
        )
    return start, part


def _without_ambiguous(part: bytes, offset: int, chunks: Chunks) -> Chunks:
    if not part.translate(None, _PLAIN):
        return chunks
    plain = np.isin(np.frombuffer(part, dtype=np.uint8), np.frombuffer(_PLAIN, dtype=np.uint8))
    ambiguous_before = np.concatenate([[0], np.cumsum(~plain)])
    clean = ambiguous_before[chunks.ends - offset] == ambiguous_before[chunks.starts - offset]
    return chunks.take(clean)


def frame_records(name: str, bases: str, size: int, frames: dict[int, bytes]) -> Iterator[FrameRecord]:
    """Yield the records that are written for frames, by chunk and then F1, F2, F3, R1, R2, R3.

    Parameters
    ----------
    name : str
        Name of the record that the frames come from.
    bases : str
        Its whole sequence.
    size : int
        Bases of a full chunk.
    frames : dict of int to bytes
        Translations by key.
    """
    chunks = chunks_of(len(bases), size)
    for key in sorted(frames):
        number, frame = divmod(key, 6)
        residues = frames[key]
        chunk = bases[chunks.starts[number] : chunks.ends[number]].upper().encode()
        nucleotides = frame_bases(chunk, frame, len(residues))
        yield FrameRecord(frame_id(name, number, frame), nucleotides.decode(), residues.decode())
