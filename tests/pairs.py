"""File pairs of a few records with numbers that are easy to check, made without torch or a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nucpro.extraction.merging import merge
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import write_vectors
from nucpro.formats.fasta import read
from nucpro.formats.sequences import DNA_WIDTH, SequenceType

WIDTH = 6
"""Width of the protein vectors."""
NAMES = ("a_frame1", "b_frame2", "c_frame3")


def numbered(rows: int, columns: int, start: float = 1.0) -> np.ndarray:
    """Matrix of float32 whose values are all different."""
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) + np.float32(start)


def make_pair(data: Path, source: str = "viral.1.1", names: Sequence[str] = NAMES) -> FilePair:
    """Write the FASTA files, the vectors and the merged file of one pair."""
    nucleotide = data / f"{source}.identified_nucleotide.fa"
    found = DataFolder(data).source_of(nucleotide)
    assert found is not None
    pair = found.pair(1)
    for sequence_type, whole, letters, codon in (
        (SequenceType.DNA, found.nucleotide_fasta, "ACGTGG", "ACA"),
        (SequenceType.PROTEIN, found.protein_fasta, "MK", "T"),
    ):
        for path in (whole, pair.fasta(sequence_type)):
            path.parent.mkdir(parents=True, exist_ok=True)
            records = (f">{name}\n{letters}{codon * number}\n" for number, name in enumerate(names))
            path.write_text("".join(records), encoding="utf-8")
    write_side(pair, SequenceType.DNA, numbered(len(names), DNA_WIDTH), names)
    write_side(pair, SequenceType.PROTEIN, numbered(len(names), WIDTH, -3.0), names[::-1])
    merge(pair.dna_vectors, pair.protein_vectors, pair.merged, "viral" if pair.label else "host")
    return pair


def write_side(
    pair: FilePair, sequence_type: SequenceType, vectors: np.ndarray, names: Sequence[str], model: str = "w"
) -> None:
    """Write vectors that say which FASTA and which weights they were made from."""
    meta = {
        "input": {"sha256": read(pair.fasta(sequence_type)).digest()},
        "made_by": {"weights_sha256": model},
    }
    write_vectors(pair.vectors(sequence_type), list(names), vectors, meta, sequence_type)
