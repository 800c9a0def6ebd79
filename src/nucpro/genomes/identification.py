"""Reading frames of a record that occur in its own proteins.

One record with its proteins comes in (:mod:`nucpro.genomes.proteins`); the frames that belong to the data
set go out. "Identified" is VirNucPro's word for them, and part of the names of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucpro.errors import FastaError
from nucpro.formats.sequences import NUCLEOTIDES
from nucpro.genomes.frames import (
    STANDARD,
    Chunks,
    GeneticCode,
    OpenFrames,
    chunk_blocks,
    chunks_of,
    frame_bases,
    frame_id,
    genetic_code,
    open_frames,
)
from nucpro.genomes.options import CodeChoice
from nucpro.genomes.proteins import Proteins

__all__ = ["FrameRecord", "Identified", "frame_records", "identify", "occurring"]

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
        See :func:`nucpro.genomes.frames.frame_bases`; the protein is the whole translation.
    """

    name: str
    nucleotides: str
    protein: str


@dataclass(frozen=True)
class Identified:
    """Frames of one record that are kept, with counts of all others.

    Parameters
    ----------
    kept : dict of int to bytes
        Translations by key (``6 * chunk + frame``, see :mod:`nucpro.genomes.frames`).
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
        A character is not a nucleotide code.
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
    # Characters outside ASCII become question marks, which are refused like any other foreign character.
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


Hashes = npt.NDArray[np.uint64]
Residues = npt.NDArray[np.uint8]

# Any odd multiplier is invertible modulo 2**64; this one is 2**64 divided by the golden ratio.
_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 2**64)
# Random values instead of character codes: every base changes all bits of a hash.
_LETTERS = np.random.default_rng(20_240_229).integers(1, 2**64, size=256, dtype=np.uint64)
# Blocks keep the intermediate arrays within a core's cache.
_TEXT_BLOCK = 1 << 15
_FRAME_BLOCK = 512
# Below this, one search in C for each frame is faster than hashing the whole text.
_FEW_FRAMES = 8


def occurring(residues: Residues, text: bytes) -> npt.NDArray[np.bool_]:
    """Which frames occur in a text of proteins.

    Parameters
    ----------
    residues : ndarray of uint8, shape (frames, residues)
        Translated frames, one per row; at least one residue, none of them a line end.
    text : bytes
        Proteins, separated by line ends.

    Returns
    -------
    ndarray of bool, shape (frames,)
        True if the whole row occurs in the text.
    """
    frames, length = residues.shape
    if not frames or length > len(text):
        return np.zeros(frames, dtype=np.bool_)
    if frames <= _FEW_FRAMES:
        return np.fromiter((row.tobytes() in text for row in residues), dtype=np.bool_, count=frames)
    wanted, which = np.unique(_row_hashes(residues), return_inverse=True)
    places = _first_places(np.frombuffer(text, dtype=np.uint8), _HashSet.of(wanted), length)[which]
    return _confirm(residues, text, places)


def _confirm(residues: Residues, text: bytes, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Compare each frame with the place where its hash was found."""
    found = places >= 0
    candidates = np.flatnonzero(found)
    length = residues.shape[1]
    windows = np.ndarray((len(text) - length + 1, length), np.uint8, text, strides=(1, 1))
    for begin in range(0, len(candidates), _FRAME_BLOCK):
        some = candidates[begin : begin + _FRAME_BLOCK]
        found[some] = (windows[places[some]] == residues[some]).all(axis=1)
        # Two different rows with one hash: rare enough to search for each by itself.
        for row in some[~found[some]]:
            found[row] = residues[row].tobytes() in text
    return found


@dataclass(frozen=True)
class _HashSet:
    """Sorted hashes behind a table of their leading bits, which most other hashes fail at."""

    hashes: Hashes
    table: npt.NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, hashes: Hashes) -> _HashSet:
        bits = min(22, len(hashes).bit_length() + 5)
        shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, dtype=np.bool_)
        table[hashes >> shift] = True
        return cls(hashes, table, shift)

    def find(self, hashes: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the indices of the given hashes that are in the set, and where in the set they are."""
        likely = np.flatnonzero(self.table[(hashes >> self.shift).view(np.int64)])
        index = np.searchsorted(self.hashes, hashes[likely])
        index[index == len(self.hashes)] = 0
        same = self.hashes[index] == hashes[likely]
        return likely[same], index[same]


def _first_places(text: Residues, wanted: _HashSet, length: int) -> npt.NDArray[np.int64]:
    """First position in the text of a window with each wanted hash; -1 where there is none."""
    places = np.full(len(wanted.hashes), -1, dtype=np.int64)
    for begin, hashes in _window_hashes(text, length):
        positions, index = wanted.find(hashes)
        missing = places[index] < 0
        # Of equal indices the last assignment stays, so the first position is assigned last.
        places[index[missing][::-1]] = positions[missing][::-1] + begin
    return places


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _row_hashes(residues: Residues) -> Hashes:
    powers = _powers(_MULTIPLIER, residues.shape[1])
    blocks = range(0, len(residues), _FRAME_BLOCK)
    return np.concatenate([_LETTERS[residues[begin : begin + _FRAME_BLOCK]] @ powers for begin in blocks])


def _window_hashes(text: Residues, length: int) -> Iterator[tuple[int, Hashes]]:
    """Yield the position of a block of windows and the hash of each window: that of its residues as a row.

    The array is used again for the next block.
    """
    count = len(text) - length + 1
    block = min(_TEXT_BLOCK, count)
    powers = _powers(_MULTIPLIER, block + length - 1)
    inverse = _powers(_INVERSE, block)
    values, hashes = np.empty_like(powers), np.empty_like(inverse)
    sums = np.zeros(block + length, dtype=np.uint64)
    for begin in range(0, count, block):
        part = text[begin : begin + block + length - 1]
        windows = len(part) - length + 1
        np.take(_LETTERS, part, out=values[: len(part)], mode="clip")
        np.multiply(values[: len(part)], powers[: len(part)], out=values[: len(part)])
        np.cumsum(values[: len(part)], out=sums[1 : len(part) + 1])
        np.subtract(sums[length : length + windows], sums[:windows], out=hashes[:windows])
        np.multiply(hashes[:windows], inverse[:windows], out=hashes[:windows])
        yield begin, hashes[:windows]
