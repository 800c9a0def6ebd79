"""Reading back everything that a run leaves behind, from disk, and judging it.

One file pair at a time, in worker processes, without torch: the vectors against their FASTA, the merged
file against its two sources, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucpro.errors import DimensionError, NucproError, StoreError
from nucpro.fasta import Records, difference, read
from nucpro.layout import DNA_WIDTH, PROTEIN_WIDTH, DataFolder, FilePair, Side, Source
from nucpro.letters import are_alike
from nucpro.recipe import input_digest, weights_digest
from nucpro.store import (
    MergedFile,
    VectorFile,
    label_of,
    no_label,
    read_merged,
    read_meta,
    read_vectors,
    rows_unlike,
)

__all__ = [
    "FileVerdict",
    "ValidationTask",
    "expected_width",
    "mixed_models",
    "outside_outputs",
    "validate_file",
    "validate_vectors",
    "width_outside",
    "without_class",
]


_ONE_MODEL = {
    Side.PROTEIN: "extract all again",
    Side.DNA: "run nucpro embed-dna again with the model that all shall have, then extract",
}


@dataclass(frozen=True)
class ValidationTask:
    """One file pair to validate.

    Parameters
    ----------
    pair : FilePair
        The pair.
    width : int
        Width that its protein vectors must have.
    """

    pair: FilePair
    width: int


@dataclass(frozen=True)
class FileVerdict:
    """What validation found in one file pair.

    Parameters
    ----------
    pair : FilePair
        The pair.
    records : int
        Rows of its merged file.
    models : dict of Side to str
        Digest of the weights that made its vectors, for the sides whose files say so.
    problems : tuple of str
        Empty for a good pair; else one message a fault, each naming its file.
    """

    pair: FilePair
    records: int
    models: Mapping[Side, str]
    problems: tuple[str, ...]


def validate_file(task: ValidationTask) -> FileVerdict:
    """Validate the protein and the merged file of one pair against FASTA and DNABERT-S file."""
    pair = task.pair
    try:
        fasta, nucleotide = read(pair.protein_fasta), read(pair.nucleotide_fasta)
        protein, dna = (
            read_vectors(pair.protein_vectors, Side.PROTEIN),
            read_vectors(pair.dna_vectors, Side.DNA),
        )
        merged = read_merged(pair.merged)
        label = label_of(merged, pair.merged)
    except (NucproError, FileNotFoundError) as error:
        return FileVerdict(pair, 0, {}, (str(error),))
    both = {Side.PROTEIN: fasta, Side.DNA: nucleotide}
    problems = [
        *_vector_problems(pair.protein_vectors, protein, task.width, {Side.PROTEIN: fasta}),
        *_id_problems(pair.protein_vectors, protein.ids, fasta.ids),
        *_vector_problems(pair.merged, merged, DNA_WIDTH + task.width, both),
        *_id_problems(pair.merged, merged.ids, fasta.ids),
        *_input_problems(pair.protein_vectors, protein, fasta),
        *_id_problems(pair.dna_vectors, dna.ids, nucleotide.ids),
        *_input_problems(pair.dna_vectors, dna, nucleotide),
        *_label_problems(pair, label),
    ]
    if not problems:
        problems += _column_problems(pair, merged, dna, protein)
    models = _models_of({Side.PROTEIN: protein, Side.DNA: dna})
    return FileVerdict(pair, len(merged.ids), models, tuple(problems))


def validate_vectors(task: ValidationTask) -> FileVerdict:
    """Validate the DNABERT-S file of one pair against its FASTA."""
    pair = task.pair
    path = pair.dna_vectors
    try:
        fasta, dna = read(pair.nucleotide_fasta), read_vectors(path, Side.DNA)
    except (NucproError, FileNotFoundError) as error:
        return FileVerdict(pair, 0, {}, (str(error),))
    problems = [
        *_vector_problems(path, dna, task.width, {Side.DNA: fasta}),
        *_id_problems(path, dna.ids, fasta.ids),
        *_input_problems(path, dna, fasta),
    ]
    return FileVerdict(pair, len(dna.ids), _models_of({Side.DNA: dna}), tuple(problems))


def _models_of(files: Mapping[Side, VectorFile]) -> dict[Side, str]:
    made = {side: weights_digest(found.meta) for side, found in files.items()}
    return {side: digest for side, digest in made.items() if digest}


def _vector_problems(
    path: Path, found: VectorFile, width: int, made_from: Mapping[Side, Records]
) -> Iterator[str]:
    vectors = found.vectors
    if vectors.shape != (len(found.ids), width):
        yield str(DimensionError((len(found.ids), width), vectors.shape, "shape of the vectors", str(path)))
        return
    zero = np.flatnonzero(~vectors.any(axis=1))
    if zero.size:
        first = found.ids[zero[0]]
        yield f"{path}: {zero.size} vectors are all zero, first {first}; remove the file and run again"
    elif bool((vectors == vectors[0]).all()) and not all(
        are_alike(records.sequences, side) for side, records in made_from.items()
    ):
        yield f"{path}: all {len(vectors)} vectors are the same; remove the file and run again"


def _id_problems(path: Path, found: list[str], expected: list[str]) -> Iterator[str]:
    missing, surplus = difference(expected, found)
    if missing or surplus or len(found) != len(expected):
        yield (
            f"{path}: expected the {len(expected)} ids of its FASTA, found {len(found)}: "
            f"{len(missing)} missing (first {missing[:3]}), {len(surplus)} surplus (first {surplus[:3]})"
        )


def _input_problems(path: Path, found: VectorFile, fasta: Records) -> Iterator[str]:
    if input_digest(found.meta) not in (None, fasta.digest()):
        yield f"{path}: made from another version of its FASTA; make it again"


def _label_problems(pair: FilePair, label: int) -> Iterator[str]:
    if label != pair.label:
        yield f"{pair.merged}: label {label}, but {pair.category} files have label {pair.label}"


def _column_problems(
    pair: FilePair, merged: MergedFile, dna: VectorFile, protein: VectorFile
) -> Iterator[str]:
    """Compare the merged columns with both sources, bit by bit."""
    for side, source in ((Side.DNA, dna), (Side.PROTEIN, protein)):
        path = pair.vectors(side)
        absent, wrong = rows_unlike(merged, source, side)
        if absent:
            yield f"{path}: {len(absent)} ids of {pair.merged.name} are missing, first {absent[0]}"
        elif wrong:
            found = f"{len(wrong)} rows differ from {path.name}, first {wrong[0]}"
            yield f"{pair.merged}: {found}; run again, which merges it anew"


def mixed_models(verdicts: Iterable[FileVerdict], side: Side) -> list[str]:
    """Files of one side whose vectors come from other weights than those of the first file."""
    made = [
        (verdict.models[side], verdict.pair.vectors(side)) for verdict in verdicts if side in verdict.models
    ]
    return [
        f"{path}: made with weights {model[:12]}…, but {made[0][1]} with {made[0][0][:12]}…; {_ONE_MODEL[side]}"
        for model, path in made
        if model != made[0][0]
    ]


def expected_width(pairs: Iterable[FilePair]) -> int:
    """Width that the first protein file with ``meta`` states; that of the default model where none does."""
    for pair in pairs:
        try:
            look = read_meta(pair.protein_vectors)
        except (StoreError, FileNotFoundError):
            continue
        if look.meta is not None:
            return look.width
    return PROTEIN_WIDTH


def outside_outputs(folder: DataFolder, sources: Iterable[Source], selected: set[Path]) -> list[Path]:
    """Protein and merged files in the output folders that belong to no selected pair, sorted."""
    found: set[Path] = set()
    for source in sources:
        found.update(source.protein_folder.glob("output_*_ESM.pt"))
    found.update(folder.merged_files())
    return sorted(found - selected)


def without_class(path: Path) -> str | None:
    """What is wrong with a merged file that does not say its class; None where it does, or cannot be read."""
    try:
        look = read_meta(path)
    except (StoreError, FileNotFoundError):
        return None
    return no_label(path) if look.kind == "merged" and not look.has_label else None


def width_outside(path: Path) -> tuple[Path, int | None]:
    """Width of the vectors of a file outside the selection; None where it cannot be read."""
    try:
        return path, read_meta(path).width
    except (StoreError, FileNotFoundError):
        return path, None
