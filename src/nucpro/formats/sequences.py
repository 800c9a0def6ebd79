"""formats.sequences."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DNA_WIDTH", "MAX_BASES", "MAX_RESIDUES", "MERGED_WIDTH", "PROTEIN_WIDTH", "Side"]

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
