"""Validation: reads back all files of a run from disk and checks them.

One file pair at a time, in worker processes, without torch: the vectors against their FASTA, the merged
file against its two sources, bit by bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import DimensionError, NucproError, StoreError, counted, first_few
from nucpro.execution.workers import Workers
from nucpro.extraction.plan import Plan
from nucpro.folder.paths import DataFolder, FilePair, Source
from nucpro.formats import (
    MergedFile,
    VectorFile,
    label_of,
    no_label,
    read_ids,
    read_merged,
    read_meta,
    read_vectors,
    rows_unlike,
)
from nucpro.formats.fasta import Records, difference, read
from nucpro.formats.sequences import DNA_WIDTH, PROTEIN_WIDTH, SequenceType, are_alike
from nucpro.state.checkpoint import Checkpoint, Fingerprint, stamps_of
from nucpro.state.recipe import input_digest, weights_digest

__all__ = [
    "FileVerdict",
    "ValidationTask",
    "dna_verdict_line",
    "expected_width",
    "known_verdict",
    "mixed_models",
    "outside_outputs",
    "problems_between",
    "remember_verdict",
    "repeated_ids",
    "validate_and_stamp",
    "validate_file",
    "validate_vectors",
    "verdict_lines",
    "width_outside",
    "without_class",
]

_ONE_MODEL = {
    SequenceType.PROTEIN: "extract all again",
    SequenceType.DNA: "run nucpro embed-dna DATA again with the one model to use, then extract",
}


@dataclass(frozen=True, slots=True)
class ValidationTask:
    """One file pair to validate.

    Parameters
    ----------
    pair : FilePair
        The pair.
    width : int
        Required width of its protein vectors.
    """

    pair: FilePair
    width: int


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """Result of validating one file pair.

    Parameters
    ----------
    pair : FilePair
        The pair.
    records : int
        Rows of its merged file.
    models : dict of SequenceType to str
        Digest of the weights of its vectors, for the sequence types whose files state it.
    problems : tuple of str
        Empty for a valid pair; else one message per problem, naming the file.
    """

    pair: FilePair
    records: int
    models: Mapping[SequenceType, str]
    problems: tuple[str, ...]


def validate_file(task: ValidationTask) -> FileVerdict:
    """Validate the protein and the merged file of one pair against FASTA and DNABERT-S file."""
    pair = task.pair
    try:
        fasta, nucleotide = read(pair.protein_fasta), read(pair.nucleotide_fasta)
        protein, dna = (
            read_vectors(pair.protein_vectors, SequenceType.PROTEIN),
            read_vectors(pair.dna_vectors, SequenceType.DNA),
        )
        merged = read_merged(pair.merged)
        label = label_of(merged, pair.merged)
    except (NucproError, FileNotFoundError) as error:
        return FileVerdict(pair, 0, {}, (str(error),))
    both = {SequenceType.PROTEIN: fasta, SequenceType.DNA: nucleotide}
    problems = [
        *_vector_problems(pair.protein_vectors, protein, task.width, {SequenceType.PROTEIN: fasta}),
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
    models = _models_of({SequenceType.PROTEIN: protein, SequenceType.DNA: dna})
    return FileVerdict(pair, len(merged.ids), models, tuple(problems))


def validate_vectors(task: ValidationTask) -> FileVerdict:
    """Validate the DNABERT-S file of one pair against its FASTA."""
    pair = task.pair
    path = pair.dna_vectors
    try:
        fasta, dna = read(pair.nucleotide_fasta), read_vectors(path, SequenceType.DNA)
    except (NucproError, FileNotFoundError) as error:
        return FileVerdict(pair, 0, {}, (str(error),))
    problems = [
        *_vector_problems(path, dna, task.width, {SequenceType.DNA: fasta}),
        *_id_problems(path, dna.ids, fasta.ids),
        *_input_problems(path, dna, fasta),
    ]
    return FileVerdict(pair, len(dna.ids), _models_of({SequenceType.DNA: dna}), tuple(problems))


def _models_of(files: Mapping[SequenceType, VectorFile]) -> dict[SequenceType, str]:
    made = {sequence_type: weights_digest(found.meta) for sequence_type, found in files.items()}
    return {sequence_type: digest for sequence_type, digest in made.items() if digest}


def _vector_problems(
    path: Path, found: VectorFile, width: int, made_from: Mapping[SequenceType, Records]
) -> Iterator[str]:
    vectors = found.vectors
    if vectors.shape != (len(found.ids), width):
        yield str(DimensionError((len(found.ids), width), vectors.shape, "shape of the vectors", str(path)))
        return
    zero = np.flatnonzero(~vectors.any(axis=1))
    if zero.size:
        first = found.ids[zero[0]]
        yield f"{path}: {counted(zero.size, 'vector')} of zeros, first {first}; remove the file and run again"
    elif bool((vectors == vectors[0]).all()) and not all(
        are_alike(records.sequences, sequence_type) for sequence_type, records in made_from.items()
    ):
        yield f"{path}: all {len(vectors)} vectors are the same; remove the file and run again"


def _id_problems(path: Path, found: list[str], expected: list[str]) -> Iterator[str]:
    missing, surplus = difference(expected, found)
    if missing or surplus or len(found) != len(expected):
        yield (
            f"{path}: expected the {counted(len(expected), 'id')} of its FASTA, found {len(found)}: "
            f"{len(missing)} missing (first {missing[:3]}), {len(surplus)} surplus (first {surplus[:3]})"
        )


def _input_problems(path: Path, found: VectorFile, fasta: Records) -> Iterator[str]:
    if input_digest(found.meta) not in (None, fasta.digest()):
        yield f"{path}: made from another version of its FASTA; recompute it"


def _label_problems(pair: FilePair, label: int) -> Iterator[str]:
    if label != pair.label:
        yield f"{pair.merged}: label {label}, but {pair.category} files have label {pair.label}"


def _column_problems(
    pair: FilePair, merged: MergedFile, dna: VectorFile, protein: VectorFile
) -> Iterator[str]:
    """Compare the merged columns with both sources, bit by bit."""
    for sequence_type, source in ((SequenceType.DNA, dna), (SequenceType.PROTEIN, protein)):
        path = pair.vectors(sequence_type)
        absent, wrong = rows_unlike(merged, source, sequence_type)
        if absent:
            yield f"{path}: lacks {counted(len(absent), 'id')} of {pair.merged.name}, first {absent[0]}"
        elif wrong:
            found = f"{counted(len(wrong), 'row')} unlike {path.name}, first {wrong[0]}"
            yield f"{pair.merged}: {found}; run again, which merges it again"


def mixed_models(verdicts: Iterable[FileVerdict], sequence_type: SequenceType) -> list[str]:
    """Files of one sequence type whose weights differ from those of the first file."""
    made = [
        (verdict.models[sequence_type], verdict.pair.vectors(sequence_type))
        for verdict in verdicts
        if sequence_type in verdict.models
    ]
    return [
        f"{path}: made with weights {model[:12]}…, but {made[0][1]} with {made[0][0][:12]}…; "
        f"{_ONE_MODEL[sequence_type]}"
        for model, path in made
        if model != made[0][0]
    ]


def expected_width(pairs: Iterable[FilePair]) -> int:
    """Width in the first protein file with ``meta``; that of the default model if there is none."""
    for pair in pairs:
        try:
            look = read_meta(pair.protein_vectors)
        except (StoreError, FileNotFoundError):
            continue
        if look.meta is not None:
            return look.width
    return PROTEIN_WIDTH


def outside_outputs(
    folder: DataFolder, sources: Iterable[Source], selected: Iterable[FilePair]
) -> list[Path]:
    """Protein and merged files in the output folders that belong to no selected pair, sorted."""
    # As text, which needs a fraction of the memory of paths.
    used = {os.fspath(path) for pair in selected for path in (pair.protein_vectors, pair.merged)}
    protein = (path for source in sources for path in source.protein_folder.glob("output_*_ESM.pt"))
    found = chain(protein, folder.walk_merged())
    return sorted({path for path in found if os.fspath(path) not in used})


def without_class(path: Path) -> str | None:
    """Problem of a merged file without a class; None if it has one, or cannot be read."""
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


def validate_and_stamp(
    task: ValidationTask,
) -> tuple[FileVerdict, Fingerprint | None, list[list[int] | None]]:
    """Verdict of a pair, with the fingerprints of its files, taken before they were read."""
    stamp, sources = Fingerprint.of(task.pair.merged), _stamps(task.pair)
    return validate_file(task), stamp, sources


def remember_verdict(
    records: Checkpoint, found: tuple[FileVerdict, Fingerprint | None, list[list[int] | None]]
) -> FileVerdict:
    """Record a verdict without problems, so that unchanged files are not read again."""
    verdict, stamp, sources = found
    if not verdict.problems:
        fact = {"of": sources, "records": verdict.records, "models": dict(verdict.models)}
        records.add("valid", verdict.pair.merged, fact, stamp)
    return verdict


def known_verdict(records: Checkpoint, pair: FilePair) -> FileVerdict | None:
    """Recorded verdict of a pair whose files have not changed since; None if it must be read."""
    fact = records.fact("valid", pair.merged)
    if fact is None or fact.get("of") != _stamps(pair) or "models" not in fact:
        return None
    models = {SequenceType(sequence_type): digest for sequence_type, digest in fact["models"].items()}
    return FileVerdict(pair, fact["records"], models, ())


def problems_between(verdicts: Sequence[FileVerdict]) -> list[str]:
    """Problems of single files and between files."""
    problems = sorted(problem for verdict in verdicts for problem in verdict.problems)
    return problems + mixed_models(verdicts, SequenceType.PROTEIN) + mixed_models(verdicts, SequenceType.DNA)


def _stamps(pair: FilePair) -> list[list[int] | None]:
    return stamps_of((pair.nucleotide_fasta, pair.protein_fasta, pair.dna_vectors, pair.protein_vectors))


Digests = NDArray[np.uint64]

_BYTES = 8


@dataclass(frozen=True)
class _Suspect:
    """A file outside the selection, and files that seem to share ids with it."""

    path: Path
    others: tuple[Path, ...]


def repeated_ids(outside: Sequence[Path], selected: Iterable[Path], workers: Workers) -> list[str]:
    """Find merged files outside the selection whose ids are also in other merged files.

    Parameters
    ----------
    outside, selected : paths
        Merged files that belong to no selected pair, and those that do; unreadable files are skipped.
    workers : Workers
        Workers that read files.

    Returns
    -------
    list of str
        One message per file outside the selection, sorted.
    """
    if not outside:
        return []
    suspects = _suspects(dict(workers.map(_digests, outside)), workers.map(_digests, selected))
    return sorted(message for message in workers.map(_message, suspects) if message)


def _suspects(outside: dict[Path, Digests], selected: Iterable[tuple[Path, Digests]]) -> list[_Suspect]:
    paths = list(outside)
    digests = np.concatenate(list(outside.values()))
    owners = np.repeat(np.arange(len(paths)), [len(found) for found in outside.values()])
    order = np.argsort(digests, kind="stable")
    digests, owners = digests[order], owners[order]
    others: list[set[Path]] = [set() for _ in paths]
    for path, found in selected:
        starts, ends = (np.searchsorted(digests, found, side) for side in ("left", "right"))
        for start, end in zip(starts, ends, strict=True):
            for owner in owners[start:end]:
                others[owner].add(path)
    for start in np.flatnonzero(digests[1:] == digests[:-1]):
        one, two = owners[start], owners[start + 1]
        others[one].add(paths[two])
        others[two].add(paths[one])
    return [_Suspect(path, tuple(sorted(found))) for path, found in zip(paths, others, strict=True) if found]


def _digests(path: Path) -> tuple[Path, Digests]:
    """Digests of the ids of a file; empty if it cannot be read, which is reported elsewhere."""
    digests = (hashlib.blake2b(name.encode(), digest_size=_BYTES).digest() for name in _ids(path))
    return path, np.frombuffer(b"".join(digests), np.uint64)


def _ids(path: Path) -> list[str]:
    try:
        return read_ids(path)
    except (StoreError, OSError):
        return []


def _message(suspect: _Suspect) -> str | None:
    ids = _ids(suspect.path)
    names, repeated, files = set(ids), set(), []
    for other in suspect.others:
        shared = names.intersection(_ids(other))
        if shared:
            files.append(other)
            repeated |= shared
    if not files:
        return None
    first = next(name for name in ids if name in repeated)
    others = first_few([str(path) for path in files], 1)
    return (
        f"{suspect.path}: outside the selection, and {len(repeated)} of its {len(ids)} ids are also in {others} "
        f"(first: {first}); a training script would read their rows twice: remove it, or move it out of this folder"
    )


def verdict_lines(verdicts: Sequence[FileVerdict]) -> list[str]:
    """Result of a validation without problems; scripts look for the last line."""
    total = sum(verdict.records for verdict in verdicts)
    viral = sum(verdict.records for verdict in verdicts if verdict.pair.label)
    return [
        f"Classes: {viral} viral, {counted(total - viral, 'host sequence')}",
        f"Validation passed: {counted(len(verdicts), 'file')}, {counted(total, 'sequence')}, all dimensions correct",
    ]


def dna_verdict_line(plan: Plan) -> str:
    """Result of a validation of DNABERT-S files without problems."""
    total = sum(item.facts.records for item in plan.items)
    return (
        f"Validation passed: {counted(len(plan.items), 'DNA file')}, "
        f"{counted(total, 'sequence')}, all dimensions correct"
    )
