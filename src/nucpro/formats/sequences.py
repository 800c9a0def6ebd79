"""Sequence types: their alphabets, widths and length limits, and how to distinguish DNA from protein."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

__all__ = [
    "ALPHABETS",
    "DNA_WIDTH",
    "LIMITS",
    "MAX_BASES",
    "MAX_RESIDUES",
    "MERGED_WIDTH",
    "NUCLEOTIDES",
    "PROTEIN_WIDTH",
    "RESIDUES",
    "SequenceType",
    "Tally",
    "advice_on",
    "are_alike",
    "copied_sequences",
    "is_surely_bases",
    "looks_like_nucleotides",
    "nucleotide_records",
]

DNA_WIDTH = 768
"""Columns of a DNABERT-S vector."""
PROTEIN_WIDTH = 1280
"""Columns of a FastESM2_650 vector; other models have their own width."""
MERGED_WIDTH = DNA_WIDTH + PROTEIN_WIDTH
"""Columns of a merged row with the default model: DNA first, then protein."""
MAX_RESIDUES = 1024
"""Longest protein input; longer ones are truncated, counted and reported."""
MAX_BASES = 10_000
"""Longest nucleotide input; longer ones are truncated, counted and reported."""


class SequenceType(StrEnum):
    """DNA or protein: a file pair has a FASTA file and a file of vectors of each."""

    DNA = "dna"
    PROTEIN = "protein"

    @property
    def word(self) -> str:
        """Its name in text."""
        return "DNA" if self is SequenceType.DNA else "protein"

    @property
    def unit(self) -> str:
        """What its lengths count."""
        return "bases" if self is SequenceType.DNA else "residues"


NUCLEOTIDES = "ACGTURYSWKMBDHVN"
"""Alphabet of a nucleotide record: the four bases, U, and the IUPAC ambiguity codes."""
RESIDUES = "ACDEFGHIKLMNPQRSTVWYXBUZO"
"""Alphabet of a protein record: those for which ESM-2 has a residue token."""

ALPHABETS = {SequenceType.DNA: NUCLEOTIDES, SequenceType.PROTEIN: RESIDUES}
"""Alphabet of each sequence type."""
LIMITS = {SequenceType.DNA: MAX_BASES, SequenceType.PROTEIN: MAX_RESIDUES}
"""Longest input of the encoder, by sequence type."""

_BASES = b"ACGTUN"
_CERTAIN = 60
"""Length from which a protein without E, F, I, L, P and Q is no coincidence: a third of all residues are these."""
_MOSTLY, _HARDLY = 0.9, 0.01
_UNKNOWN_BASES = re.compile(rb"[^ACGT]+")
_ADVICE = {
    "*": "'*' is a stop: remove it, or cut the protein there",
    "-": "'-' is a gap of an alignment: remove the gaps",
    ".": "'.' is a gap of an alignment: remove the gaps",
    " ": "remove the spaces, and the numbers that GenBank puts before lines",
    "\0": "zeros in a file are what a crash leaves: copy or download it again",
    "\x1a": "'\\x1a' ended texts of DOS: remove it",
    "\t": "remove the tabs",
    "\r": "its lines end in two ways: save the file with line feeds",
    ";": "lines that start with ';' are comments: remove them",
    "J": "'J' means I or L: write X",
    "?": "only ASCII characters are allowed: '?' is one that is not",
}
_NUMBERS = "remove the numbers, which GenBank and GCG put before lines"


@dataclass(frozen=True)
class Tally:
    """Counts of residues or bases in a file, by kind.

    Parameters
    ----------
    length : int
        Total length.
    bases : int
        A, C, G, T, U and N.
    foreign : int
        Characters outside the nucleotide alphabet.
    """

    length: int
    bases: int
    foreign: int

    @classmethod
    def of(cls, text: bytes) -> Self:
        """Tally of an upper-case sequence."""
        bases = len(text) - len(text.translate(None, _BASES))
        return cls(len(text), bases, len(text.translate(None, NUCLEOTIDES.encode())))

    def __add__(self, other: Tally) -> Tally:
        """Tally of both together."""
        return Tally(self.length + other.length, self.bases + other.bases, self.foreign + other.foreign)

    @property
    def sequence_type(self) -> SequenceType:
        """Whether the file looks like nucleotides.

        It does if nearly all characters are A, C, G, T, U or N, or if it is long and has nucleotide codes
        only.
        """
        is_mostly_bases = self.bases >= _MOSTLY * self.length and self.foreign <= _HARDLY * self.length
        is_certain = self.foreign == 0 and self.length >= _CERTAIN
        return SequenceType.DNA if is_mostly_bases or is_certain else SequenceType.PROTEIN


def looks_like_nucleotides(text: bytes) -> bool:
    """Whether upper-case sequences of records that should be proteins look like nucleotides."""
    # Leucine, the commonest residue, is not a nucleotide code: counting it is enough for nearly every protein
    # file.
    return text.count(b"L") <= _HARDLY * len(text) and Tally.of(text).sequence_type is SequenceType.DNA


def nucleotide_records(sequences: Sequence[bytes]) -> list[int]:
    """Indices of the records of a protein file that look like nucleotides.

    All records if the file as a whole does; else those that are long enough to judge and almost only bases.

    Parameters
    ----------
    sequences : sequence of bytes
        Upper-case sequences.

    Returns
    -------
    list of int
        Indices, from 0.
    """
    if sequences and looks_like_nucleotides(b"".join(sequences)):
        return list(range(len(sequences)))
    return [place for place, sequence in enumerate(sequences) if is_surely_bases(sequence)]


def is_surely_bases(sequence: bytes) -> bool:
    """Whether one upper-case record is of nucleotides: long enough to judge, and nearly all bases."""
    is_enough = len(sequence) >= _CERTAIN
    return is_enough and len(sequence.translate(None, _BASES)) <= (1 - _MOSTLY) * len(sequence)


def copied_sequences(
    nucleotide: Path, bases: int, protein: Path, residues: int, *, is_nucleotide: bool
) -> str | None:
    """Problem of a protein file that holds nucleotides; None if there is no sign of that.

    A translation has a third of the length, so a real protein of only A, C, G and T is not mistaken for DNA.

    Parameters
    ----------
    nucleotide, protein : Path
        The two files of a pair.
    bases, residues : int
        Total length of each.
    is_nucleotide : bool
        Whether the protein file looks like nucleotides; see :class:`Tally`.
    """
    if not is_nucleotide or 2 * residues <= bases:
        return None
    return (
        f"{protein}: contains nucleotides: {residues} characters, almost all A, C, G, T, U or N, beside {bases} bases "
        f"in {nucleotide}, of which a translation has a third; restore the proteins"
    )


def are_alike(sequences: Sequence[bytes], sequence_type: SequenceType) -> bool:
    """Whether an encoder may compute the same vector for all records.

    It reads nothing beyond the limit, reads U as T, and has no distinct tokens for ambiguous bases.

    Parameters
    ----------
    sequences : sequence of bytes
        Upper-case sequences.
    sequence_type : SequenceType
        What they are.
    """
    read = (sequence[: LIMITS[sequence_type]] for sequence in sequences)
    if sequence_type is SequenceType.DNA:
        read = (_UNKNOWN_BASES.sub(b"N", sequence.replace(b"U", b"T")) for sequence in read)
    return len(set(read)) <= 1


def advice_on(letter: str) -> str | None:
    """Advice for a character that is not allowed, if its cause is known."""
    return _NUMBERS if letter.isdigit() else _ADVICE.get(letter)
