"""Data folders whose merged files were written for a report, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from folders import Frame, add_source
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import read_merged, write_merged, write_vectors
from nucpro.formats.fasta import read
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.report.subject import FileState, Output, Subject
from nucpro.state import history

PROTEIN = 32
HOSTILE = (
    "<script>window.broken=1</script>",
    "</script><img/src=x/onerror=window.broken=1>",
    '"onload="window.broken=1',
    "'];window.broken=1;//",
    "&lt;b&gt;${window.broken=1}",
)


def write_outputs(pair: FilePair, seed: int, distance: float = 3.0) -> None:
    """Write all three files of a pair: random rows, viral ones around another centre than hosts."""
    ids = read(pair.protein_fasta).ids
    vectors = np.random.default_rng(seed).standard_normal((len(ids), DNA_WIDTH + PROTEIN)).astype(np.float32)
    vectors[:, ::8] += distance * pair.label
    meta = {"made_by": {"id": "some/model", "revision": "abc"}, "width": PROTEIN}
    write_vectors(pair.dna_vectors, ids, vectors[:, :DNA_WIDTH].copy(), None, SequenceType.DNA)
    write_vectors(pair.protein_vectors, ids, vectors[:, DNA_WIDTH:].copy(), meta, SequenceType.PROTEIN)
    pair.merged.parent.mkdir(parents=True, exist_ok=True)
    write_merged(pair.merged, ids, vectors, None, pair.label)


def copy_rows(source: FilePair, target: FilePair) -> None:
    """Give a file the rows of another, under its own ids and label."""
    ids = read(target.protein_fasta).ids
    write_merged(target.merged, ids, read_merged(source.merged).vectors[: len(ids)], None, target.label)


def add_files(data: Path, name: str, frames: Sequence[Frame], per_file: int = 10) -> list[FilePair]:
    """A source whose split files all have their outputs."""
    source = add_source(data, name, frames, per_file=per_file)
    pairs = [source.pair(number) for number in range(1, -(-len(frames) // per_file) + 1)]
    for pair in pairs:
        write_outputs(pair, pair.number)
    return pairs


def subject_of(data: Path, pairs: Sequence[FilePair]) -> Subject:
    """What a job would say of these files."""
    states = [FileState(pair, len(read(pair.protein_fasta)), Output.VALIDATED) for pair in pairs]
    runs = history.read(DataFolder(data))
    return Subject(DataFolder(data), states, "seeded", ("few hosts",), (), 0, runs)
