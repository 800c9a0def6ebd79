"""Data folders with merged files of real reading frames, whose vectors are counts of words instead of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from folders import Frame, add_source
from nucpro.extraction.merging import merge
from nucpro.folder.paths import FilePair
from nucpro.formats import write_vectors
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.state.recipe import Recipe

PROTEIN_WIDTH = 20
PER_FILE = 40
"""So that there are 8 files, which are looked at without worker processes."""
WIDTH = DNA_WIDTH + PROTEIN_WIDTH
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
WORDS = {"".join(word): number for number, word in enumerate(product("ACGT", repeat=4))}
RECIPES = {
    SequenceType.DNA: Recipe(
        SequenceType.DNA, {"id": "words/of-4", "revision": "r1", "weights_sha256": "d" * 64}, DNA_WIDTH
    ),
    SequenceType.PROTEIN: Recipe(
        SequenceType.PROTEIN,
        {"id": "counts/of-1", "revision": "r2", "weights_sha256": "e" * 64},
        PROTEIN_WIDTH,
    ),
}


def dna_vector(bases: str) -> np.ndarray:
    counts = np.zeros(DNA_WIDTH, np.float32)
    for start in range(len(bases) - 3):
        counts[WORDS[bases[start : start + 4]]] += 1
    return counts / 4


def protein_vector(residues: str) -> np.ndarray:
    return np.array([residues.count(letter) for letter in RESIDUES], np.float32)


def write_side(
    pair: FilePair,
    sequence_type: SequenceType,
    frames: Sequence[Frame],
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write the vectors of one sequence type; `made_by` takes the place of what the recipe says."""
    vector = (
        (lambda f: dna_vector(f.bases))
        if sequence_type is SequenceType.DNA
        else (lambda f: protein_vector(f.residues))
    )
    meta = RECIPES[sequence_type].meta("f" * 64, len(frames))
    meta["made_by"] = dict(made_by or RECIPES[sequence_type].made_by)
    write_vectors(
        pair.vectors(sequence_type),
        [f.name for f in frames],
        np.stack([vector(f) for f in frames]),
        meta,
        sequence_type,
    )


def join(pair: FilePair) -> None:
    """Merge both sides of a pair."""
    merge(pair.dna_vectors, pair.protein_vectors, pair.merged, "viral" if pair.label else "host")


def fill(data: Path, name: str, frames: Sequence[Frame], per_file: int) -> list[FilePair]:
    """Write a source with everything that is made from it."""
    source = add_source(data, name, frames, per_file=per_file)
    pairs = []
    for number, start in enumerate(range(0, len(frames), per_file), 1):
        pair = source.pair(number)
        for sequence_type in SequenceType:
            write_side(pair, sequence_type, frames[start : start + per_file])
        join(pair)
        pairs.append(pair)
    return pairs


def make_folder(
    data: Path, frames: Mapping[str, Sequence[Frame]], per_file: int = PER_FILE
) -> list[FilePair]:
    """Write merged files of all frames of the demo's genomes, as far as they are in `frames`."""
    data.mkdir()
    return [pair for name, found in frames.items() for pair in fill(data, name, found, per_file)]
