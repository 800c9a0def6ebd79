"""Training data in ``data_merge``: all problems are found before rows are read; then the rows.

Worker processes check merged files and the vectors that these were made from; threads read the rows, without torch.
Rows go to :mod:`nucpro.classifier.features` and :mod:`nucpro.api`, metadata into the card of the model.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import DataError, PreflightError, StoreError, ValidationError, counted
from nucpro.execution.workers import Workers
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import (
    CLASS_NAMES,
    NO_CATEGORY,
    DataFolder,
    FilePair,
    Source,
    category_of,
    contradiction_in,
    natural_key,
)
from nucpro.formats import MergedFile, file_digest, label_of, no_label, read_merged, read_meta
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.genomes.flatfile import Organism
from nucpro.genomes.paths import manifest_path, organisms_path
from nucpro.genomes.reports import read_manifest
from nucpro.genomes.taxonomy import read_organisms
from nucpro.machine import cores
from nucpro.progress import Show, silent, tracked

__all__ = ["MergedSource", "RowFacts", "Survey", "read_rows", "survey"]

logger = logging.getLogger(__name__)

_MERGE_AGAIN = "run nucpro extract DATA again, which replaces what is out of date"
_SHOWN = 10
_MOST_READERS = 8
"""Threads that read; each holds one file (82 MB) in memory. Checksums and copies run beside each other."""


@dataclass(frozen=True)
class MergedSource:
    """Metadata of one merged file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Its path below ``data_merge``, with ``/`` between components.
    rows, width : int
        Shape of its matrix; 0 where it cannot be read.
    made_by : dict of str to (dict or None)
        Per sequence type, the provenance of its columns; None if not recorded.
    problems : tuple of str
        What makes it unfit, each naming its file.
    """

    path: Path
    name: str
    rows: int
    width: int
    made_by: Mapping[str, Mapping[str, Any] | None]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """All merged files of a data folder, fit for training together.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    files : tuple of MergedSource
        Naturally sorted by name.
    encoders : dict of str to (dict or None)
        Per sequence type, the provenance of the vectors of all files.
    chunk_length : int or None
        Bases per full chunk, if all sources that record it agree.
    organisms : dict of str to Organism
        Organism of each record, as far as the data set records it.
    """

    folder: DataFolder
    files: tuple[MergedSource, ...]
    encoders: Mapping[str, Mapping[str, Any] | None]
    chunk_length: int | None
    organisms: Mapping[str, Organism]

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def widths(self) -> dict[str, int]:
        """Columns per sequence type."""
        return {
            SequenceType.DNA.value: DNA_WIDTH,
            SequenceType.PROTEIN.value: self.files[0].width - DNA_WIDTH,
        }


def survey(data_dir: Path) -> Survey:
    """Check all merged files of a data folder.

    Raises
    ------
    PreflightError
        All problems at once: nothing to train on, files that cannot be read, other widths, vectors of other
        encoders, merged files that are older than their vectors.
    """
    folder = DataFolder(data_dir)
    require_folder(data_dir)
    paths = folder.merged_files()
    if not paths:
        again = f"nucpro extract {shlex.quote(str(data_dir))}"
        raise PreflightError([f"{folder.merge_root}: no merged files; make them with {again}"])
    with Workers() as workers:
        found = list(workers.map(_look_at, [(folder, path) for path in paths]))
    files = tuple(sorted(found, key=lambda file: natural_key(file.name)))
    problems = [problem for file in files for problem in file.problems]
    if not problems:
        problems = [*_width_problems(files), *_encoder_problems(files)]
    if problems:
        raise PreflightError([*problems[:_SHOWN], *_more(problems)])
    encoders = {sequence_type.value: _common_encoder(files, sequence_type) for sequence_type in SequenceType}
    sources = {pair.source for file in files if (pair := folder.pair_of_merged(file.path)) is not None}
    tables = [path for source in sources if (path := organisms_path(source)).exists()]
    organisms = {record: organism for path in tables for record, organism in read_organisms(path).items()}
    return Survey(folder, files, encoders, _chunk_length(sources), organisms)


def _look_at(where: tuple[DataFolder, Path]) -> MergedSource:
    folder, path = where
    name = path.relative_to(folder.merge_root).as_posix()
    unknown: dict[str, Mapping[str, Any] | None] = {
        sequence_type.value: None for sequence_type in SequenceType
    }
    try:
        summary = read_meta(path)
    except (StoreError, OSError) as error:
        return MergedSource(path, name, 0, 0, unknown, (str(error),))
    problems = []
    if summary.kind != "merged":
        problems.append(f"{path}: holds {summary.kind} vectors, expected merged ones; {_MERGE_AGAIN}")
    elif not summary.has_label:
        problems.append(no_label(path))
    if summary.width <= DNA_WIDTH:
        problems.append(
            f"{path}: {summary.width} columns, expected more than the {DNA_WIDTH} of DNABERT-S; {_MERGE_AGAIN}"
        )
    if category_of(name) is None:
        problems.append(f"{path}: {NO_CATEGORY}")
    doubt = contradiction_in(name)
    if doubt:
        problems.append(f"{path}: {doubt}")
    pair = folder.pair_of_merged(path)
    sources = (summary.meta or {}).get("sources")
    if pair is None or not isinstance(sources, dict):
        return MergedSource(path, name, summary.count, summary.width, unknown, tuple(problems))
    made_by = {}
    for sequence_type in SequenceType:
        made_by[sequence_type.value], older = _maker(
            pair, sequence_type, sources.get(f"{sequence_type.value}_sha256")
        )
        problems += older
    return MergedSource(path, name, summary.count, summary.width, made_by, tuple(problems))


def _maker(
    pair: FilePair, sequence_type: SequenceType, digest: object
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """Provenance of one sequence type of a merged file, from the file of vectors with that digest; and its problems."""
    vectors = pair.vectors(sequence_type)
    try:
        if file_digest(vectors) != digest:
            return None, [
                f"{pair.merged}: was merged from other vectors than {vectors} holds now; {_MERGE_AGAIN}"
            ]
        made_by = (read_meta(vectors).meta or {}).get("made_by")
    except DataError as error:
        if not vectors.exists():  # only the merged files were brought here
            return None, []
        return None, [str(error)]
    return (made_by if isinstance(made_by, dict) else None), []


def _width_problems(files: Sequence[MergedSource]) -> list[str]:
    first = files[0]
    return [
        f"{file.path}: {file.width} columns, but {first.path} has {first.width}; {_MERGE_AGAIN}"
        for file in files
        if file.width != first.width
    ]


def _encoder_problems(files: Sequence[MergedSource]) -> list[str]:
    """Files whose columns come from another model, or other options, than those of the first file with provenance."""
    problems = []
    for sequence_type in SequenceType:
        known = [(file, maker) for file in files if (maker := file.made_by[sequence_type.value]) is not None]
        for file, maker in known[1:]:
            first, expected = known[0]
            odd = sorted(key for key in maker.keys() | expected.keys() if maker.get(key) != expected.get(key))
            # Name and revision of a model add nothing to the digest of its weights.
            odd = [key for key in odd if key not in ("id", "revision")]
            if odd:
                problems.append(
                    f"{file.path}: mixed encoders: its {sequence_type.word} columns were made with "
                    f"{_said(maker, odd[0])}, those of {first.path} with {_said(expected, odd[0])}; {_MERGE_AGAIN}"
                )
    return problems


def _said(made_by: Mapping[str, Any], key: str) -> str:
    value = str(made_by.get(key))
    shown = f"{value[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", value) else value
    return f"{made_by.get('id')} ({key} {shown})"


def _common_encoder(files: Sequence[MergedSource], sequence_type: SequenceType) -> Mapping[str, Any] | None:
    known = [maker for file in files if (maker := file.made_by[sequence_type.value]) is not None]
    if len(known) < len(files):
        logger.warning(
            "the model of the %s columns is not recorded for %d of %d files; %s",
            sequence_type.word,
            len(files) - len(known),
            len(files),
            "the model of the other files is assumed" if known else "prediction cannot check its model",
        )
    return known[0] if known else None


def _chunk_length(sources: Iterable[Source]) -> int | None:
    """Length that the records of the data set name; one folder has one length (docs/dataset.md)."""
    manifests = (read_manifest(manifest_path(source)) for source in sources)
    lengths = {manifest.length for manifest in manifests if manifest is not None}
    return lengths.pop() if len(lengths) == 1 else None


def _more(problems: Sequence[str]) -> list[str]:
    return [f"and {len(problems) - _SHOWN} more like these"] if len(problems) > _SHOWN else []


@dataclass(frozen=True, eq=False)
class RowFacts:
    """All rows of a data folder but for their numbers.

    Parameters
    ----------
    ids : list of str
        One per row.
    labels : ndarray of int64, shape [N]
        1 viral, 0 host.
    files : ndarray of int32, shape [N]
        Number of each row's file in :attr:`Survey.files`.
    digest : str
        SHA-256 over the names and digests of all files.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    files: NDArray[np.int32]
    digest: str


def read_rows(
    survey: Survey, put: Callable[[int, NDArray[np.float32]], object], show: Show = silent
) -> RowFacts:
    """Read all merged files once.

    Parameters
    ----------
    survey : Survey
        The files.
    put : callable
        Takes the number of a file's first row and its vectors; called from several threads.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    RowFacts
        Ids, labels and digests of the rows, in the order of the files.

    Raises
    ------
    StoreError
        A file that cannot be read, or has no label.
    ValidationError
        A label that is not that of the file's category, or a duplicate id.
    """
    starts = np.cumsum([0, *(file.rows for file in survey.files)]).tolist()

    def read(number: int) -> _Part:
        source = survey.files[number]
        merged = read_merged(source.path)
        if merged.vectors.shape != (source.rows, source.width):
            raise StoreError(
                f"{source.path}: changed while it was read; stop the program that writes it, then run again"
            )
        label = _checked_label(source, merged)
        put(starts[number], merged.vectors)
        return _Part(merged.ids, label, merged.digest)

    with ThreadPoolExecutor(min(_MOST_READERS, cores())) as pool:
        reading = pool.map(read, range(len(survey.files)))
        parts = list(tracked(reading, len(survey.files), "Reading features", show))
    ids = [name for part in parts for name in part.ids]
    if len(set(ids)) != len(ids):
        raise ValidationError(_repeated(ids, survey))
    counts = [len(part.ids) for part in parts]
    lines = (f"{part.digest}  {file.name}\n" for part, file in zip(parts, survey.files, strict=True))
    return RowFacts(
        ids=ids,
        labels=np.repeat([part.label for part in parts], counts).astype(np.int64),
        files=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
    )


@dataclass(frozen=True)
class _Part:
    """What is kept of a file beside its numbers."""

    ids: list[str]
    label: int
    digest: str


def _checked_label(source: MergedSource, merged: MergedFile) -> int:
    label = label_of(merged, source.path)
    category = category_of(source.name)
    expected = int(category == CLASS_NAMES[1])
    if label != expected:
        raise ValidationError(
            f"{source.path}: label {merged.label}, but {category} files have label {expected}; run "
            "nucpro extract DATA again, which replaces what is out of date, or move the file away "
            "if it is not selected"
        )
    return label


def _repeated(ids: list[str], survey: Survey) -> str:
    seen: set[str] = set()
    twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    return (
        f"{survey.folder.merge_root}: {counted(len(twice), 'id')} in more than one merged file "
        f"(first {twice[0]}), so rows "
        "would be trained on twice and could be in two parts of a split; move one of the files away"
    )
