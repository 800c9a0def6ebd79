"""A sample of a data folder's merged rows: balanced, seeded, and bounded in time and memory.

File pairs come in with their category; merged files and FASTA files are read one at a time in worker
processes, which hand back only the rows that were drawn. The same folder gives the same sample.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import NucproError
from nucpro.execution.workers import Workers
from nucpro.folder.paths import CATEGORIES, SEED, FilePair
from nucpro.formats import label_of, read_merged_rows, read_meta
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.progress import Show, silent, tracked

__all__ = ["MOST_FILES", "Sample", "draw_rows", "read_sample", "shares"]

MOST_FILES = 400
"""Files that are read at most, so that a folder of 100,000 files takes no longer than one of a few hundred."""

_ASKED = 8
"""Files whose ``meta`` is read; finding it in a file of 10,000 rows takes longer than reading the rows."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled rows, in random order, so that no class covers another on a map.

    Attributes
    ----------
    ids : list of str
        Record ids.
    vectors : ndarray of float32, shape [N, D]
        Merged rows, DNA columns first.
    files : ndarray of int64, shape [N]
        Row of :attr:`pairs` that a record comes from.
    pairs : list of FilePair
        Files that rows were sampled from.
    bases, residues : ndarray of int64, shape [N]
        Lengths of the two sequences of each record.
    base_lengths, residue_lengths : dict of int to Counter
        How many records of each length the files hold that were read, by label; all records, not only those drawn.
    metas : list of (SequenceType, dict or None, int)
        ``meta`` without what differs from file to file, and the number of files that state it, the most common
        first; of some files only, since validation compares the models of all.
    available : int
        Files that could have been read.
    problems : list of str
        Files that could not be read.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    files: NDArray[np.int64]
    pairs: list[FilePair]
    bases: NDArray[np.int64]
    residues: NDArray[np.int64]
    base_lengths: dict[int, Counter[int]]
    residue_lengths: dict[int, Counter[int]]
    metas: list[tuple[SequenceType, dict[str, Any] | None, int]]
    available: int
    problems: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each row: 1 viral, 0 host; shape [N]."""
        return np.array([pair.label for pair in self.pairs], np.int64)[self.files]

    @property
    def categories(self) -> NDArray[np.int64]:
        """Row of :data:`nucpro.folder.paths.CATEGORIES` of each row; shape [N]."""
        order = [CATEGORIES.index(str(pair.category)) for pair in self.pairs]
        return np.array(order, np.int64)[self.files]


@dataclass
class _Part:
    """Result of one worker for one file pair; ``number`` is its place among the tasks."""

    number: int
    pair: FilePair
    ids: list[str] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None
    lengths: dict[SequenceType, list[int]] = field(default_factory=dict)
    histograms: dict[SequenceType, Counter[int]] = field(default_factory=dict)
    metas: dict[SequenceType, dict[str, Any] | None] = field(default_factory=dict)
    problem: str = ""


def read_sample(pairs: Iterable[FilePair], points: int, workers: Workers, show: Show = silent) -> Sample:
    """Sample rows from the existing merged files.

    Parameters
    ----------
    pairs : iterable of FilePair
        Files with a category.
    points : int
        Rows to draw: as many of each class as there are, equal shares of each category of hosts, and of
        each file. Fewer where files hold fewer.
    workers : Workers
        Workers that read files.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    Sample
        Rows, labels, ids and lengths.
    """
    present = [pair for pair in pairs if pair.merged.exists()]
    chosen = _choose(present)
    wanted = draw_rows(chosen, points)
    step = -(-len(chosen) // _ASKED)
    tasks = [(number, pair, wanted[pair], number % step == 0) for number, pair in enumerate(chosen)]
    read_parts = tracked(workers.map(_read, tasks), len(tasks), "Reading a sample", show)
    parts = sorted(read_parts, key=lambda part: part.number)
    return _joined(parts, len(present))


def draw_rows(pairs: Sequence[FilePair], points: int) -> dict[FilePair, int]:
    """Rows to draw from each file: equal shares of classes, then of categories, then of files."""
    wanted: dict[FilePair, int] = {}
    by_label = _grouped(pairs, lambda pair: pair.label)
    for share, of_class in zip(shares(points, len(by_label)), by_label, strict=True):
        by_category = _grouped(of_class, lambda pair: str(pair.category))
        for part, of_category in zip(shares(share, len(by_category)), by_category, strict=True):
            wanted.update(zip(of_category, shares(part, len(of_category)), strict=True))
    return wanted


def shares(total: int, parts: int) -> list[int]:
    """Divide a number into parts that differ by one at most, the larger first."""
    return [total // parts + (place < total % parts) for place in range(parts)]


def _grouped(pairs: Iterable[FilePair], key: Any) -> list[list[FilePair]]:
    groups: dict[Any, list[FilePair]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair)
    return list(groups.values())


def _choose(pairs: Sequence[FilePair]) -> list[FilePair]:
    """At most :data:`MOST_FILES`, drawn with equal shares of classes and categories, in their old order."""
    if len(pairs) <= MOST_FILES:
        return list(pairs)
    generator = random.Random(SEED)
    shuffled = generator.sample(pairs, len(pairs))
    groups = [
        _grouped(of_class, lambda pair: str(pair.category))
        for of_class in _grouped(shuffled, lambda pair: pair.label)
    ]
    taken = {pair for of_class in groups for pair in _in_turns(of_class, MOST_FILES // len(groups))}
    return [pair for pair in pairs if pair in taken]


def _in_turns(groups: list[list[FilePair]], count: int) -> list[FilePair]:
    """Take one of each group in turns until there are enough."""
    longest = max(map(len, groups))
    turns = [group[turn] for turn in range(longest) for group in groups if turn < len(group)]
    return turns[:count]


def _read(task: tuple[int, FilePair, int, bool]) -> _Part:
    number, pair, rows, asks_meta = task
    part = _Part(number, pair)
    try:
        generator = random.Random(f"{SEED} {pair.key}")
        merged = read_merged_rows(
            pair.merged, lambda count: sorted(generator.sample(range(count), min(rows, count)))
        )
        label = label_of(merged, pair.merged)
        if label != pair.label:
            raise NucproError(f"{pair.merged}: label {label}, expected {pair.label}")
        if not np.isfinite(merged.vectors).all():
            raise NucproError(f"{pair.merged}: holds NaN or infinite values; nucpro validate DATA names them")
        part.ids, part.vectors = merged.ids, merged.vectors
        for sequence_type in SequenceType:
            records = read(pair.fasta(sequence_type))
            length_of = dict(zip(records.ids, map(len, records.sequences), strict=True))
            part.histograms[sequence_type] = Counter(length_of.values())
            part.lengths[sequence_type] = [length_of.get(name, 0) for name in part.ids]
            if asks_meta:
                part.metas[sequence_type] = read_meta(pair.vectors(sequence_type)).meta
    except (NucproError, OSError) as error:
        return _Part(number, pair, problem=str(error))
    return part


def _joined(parts: Sequence[_Part], available: int) -> Sample:
    problems = [part.problem for part in parts if part.problem]
    widths = Counter(part.vectors.shape[1] for part in parts if part.vectors is not None)
    width = widths.most_common(1)[0][0] if widths else 0
    good = []
    for part in parts:
        if part.vectors is not None and part.vectors.shape[1] != width:
            problems.append(f"{part.pair.merged}: {part.vectors.shape[1]} wide, most files are {width}")
        elif part.vectors is not None:
            good.append(part)
    order = np.random.default_rng(SEED).permutation(sum(len(part.ids) for part in good))
    ids = [name for part in good for name in part.ids]
    empty = np.empty((0, width), np.float32)
    vectors = np.concatenate([empty, *(part.vectors for part in good if part.vectors is not None)])
    files = np.repeat(np.arange(len(good)), [len(part.ids) for part in good])
    return Sample(
        ids=[ids[row] for row in order],
        vectors=vectors[order],
        files=files[order],
        pairs=[part.pair for part in good],
        bases=_lengths(good, SequenceType.DNA)[order],
        residues=_lengths(good, SequenceType.PROTEIN)[order],
        base_lengths=_histogram(good, SequenceType.DNA),
        residue_lengths=_histogram(good, SequenceType.PROTEIN),
        metas=_metas(good),
        available=available,
        problems=problems,
    )


def _lengths(parts: Iterable[_Part], sequence_type: SequenceType) -> NDArray[np.int64]:
    return np.array([length for part in parts for length in part.lengths[sequence_type]], np.int64)


def _histogram(parts: Iterable[_Part], sequence_type: SequenceType) -> dict[int, Counter[int]]:
    counts: dict[int, Counter[int]] = {1: Counter(), 0: Counter()}
    for part in parts:
        counts[part.pair.label].update(part.histograms[sequence_type])
    return counts


def _metas(parts: Iterable[_Part]) -> list[tuple[SequenceType, dict[str, Any] | None, int]]:
    """Provenance of the vectors, without values that differ between files, the most common first."""
    found: Counter[tuple[SequenceType, str]] = Counter()
    values: dict[tuple[SequenceType, str], dict[str, Any] | None] = {}
    for part in parts:
        for sequence_type, meta in part.metas.items():
            common = None if meta is None else {k: v for k, v in meta.items() if k != "input"}
            key = (sequence_type, repr(common))
            found[key] += 1
            values[key] = common
    return [
        (sequence_type, values[sequence_type, text], files)
        for (sequence_type, text), files in found.most_common()
    ]
