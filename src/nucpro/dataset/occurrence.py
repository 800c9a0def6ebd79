"""Which reading frames occur in the proteins of their record.

Frames come in as rows of equal length from :mod:`nucpro.dataset.frames`, proteins as one text with line
ends between them; a mask goes out. The work is linear in the text and in the frames: a rolling hash
(Karp and Rabin, 1987, https://doi.org/10.1147/rd.312.0249) finds for each frame one place of the text that
may hold it, and the residues are then compared, so the answer does not depend on the hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["occurring"]

Hashes = npt.NDArray[np.uint64]
Residues = npt.NDArray[np.uint8]

# Any odd multiplier is invertible modulo 2**64; this one is 2**64 divided by the golden ratio.
_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 2**64)
# Random values instead of letter codes: every letter changes all bits of a hash.
_LETTERS = np.random.default_rng(20_240_229).integers(1, 2**64, size=256, dtype=np.uint64)
# Blocks keep the intermediate arrays within a core's cache.
_TEXT_BLOCK = 1 << 15
_FRAME_BLOCK = 512
# Below this, one search in C for each frame is faster than hashing the whole text.
_FEW_FRAMES = 8


def occurring(residues: Residues, text: bytes) -> npt.NDArray[np.bool_]:
    """Tell which frames occur in a text of proteins.

    Parameters
    ----------
    residues : ndarray of uint8, shape (frames, residues)
        Translated frames, one a row; at least one residue, none of them a line end.
    text : bytes
        Proteins, separated by line ends.

    Returns
    -------
    ndarray of bool, shape (frames,)
        True where the whole row stands somewhere in the text.
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
