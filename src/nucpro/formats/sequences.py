"""formats.sequences."""

from __future__ import annotations

from enum import StrEnum

from nucpro.formats.fasta import NUCLEOTIDES, RESIDUES

__all__ = [
    "ALPHABETS",
    "DNA_WIDTH",
    "LIMITS",
    "MAX_BASES",
    "MAX_RESIDUES",
    "MERGED_WIDTH",
    "PROTEIN_WIDTH",
    "Side",
]

DNA_WIDTH = 768
"""Columns of a DNABERT-S vector."""
PROTEIN_WIDTH = 1280
"""Columns of a FastESM2_650 vector; other models bring their own width."""
MERGED_WIDTH = DNA_WIDTH + PROTEIN_WIDTH
"""Columns of a merged row with the default model: DNA first, then protein."""
MAX_RESIDUES = 1024
"""Longest protein input; longer ones are cut there, counted and reported."""
MAX_BASES = 10_000
"""Longest nucleotide input; longer ones are cut there, counted and reported."""


class Side(StrEnum):
    """The two sides of a file pair: each a FASTA file and the vectors made from it."""

    DNA = "dna"
    PROTEIN = "protein"


ALPHABETS = {Side.DNA: NUCLEOTIDES, Side.PROTEIN: RESIDUES}
"""Letters of a record, by side."""
LIMITS = {Side.DNA: MAX_BASES, Side.PROTEIN: MAX_RESIDUES}
"""Letters that an encoder reads of a record, by side."""
