"""Which rows are trained on, which choose the best epoch, and which are kept for the final judgement.

Ids come from :mod:`nucpro.classifier.features`; the parts go to fitting, and with what leaks between them
into the model's card. Rows of one group (a genome, a file, a family) are in one part only, unless rows are
split on request.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.classifier.options import SplitBy, TrainingOptions
from nucpro.errors import DataError, UsageError, ValidationError, counted
from nucpro.folder.paths import CLASS_NAMES
from nucpro.formats.opening import read_input
from nucpro.genomes.flatfile import Organism
from nucpro.genomes.frames import place_of
from nucpro.genomes.taxonomy import DUMP_NAME, Taxonomy

__all__ = ["PARTS", "Grouping", "Split", "genomes_of", "group", "read_families", "split", "taxa_of"]

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
"""Names of the three parts, by number."""

Codes = NDArray[np.int64]

_DRAWS = 64
"""Random orders that are tried for one whose parts have the sizes that were asked for."""
_CLOSE_ENOUGH = 0.001
_SHOWN = 5
_NO_TEXT = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive",
    b"\x1f\x8b": "packed with gzip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
}


@dataclass(frozen=True, eq=False)
class Grouping:
    """What each row belongs to.

    Parameters
    ----------
    codes : ndarray of int64, shape [N]
        Number of each row's group.
    names : tuple of str
        Name of each group, sorted.
    """

    codes: Codes
    names: tuple[str, ...]

    @classmethod
    def of(cls, keys: Sequence[str]) -> Grouping:
        """Groups of rows that have the same key."""
        names, codes = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)
        return cls(codes.astype(np.int64).reshape(-1), tuple(names.tolist()))

    def over(self, codes: NDArray[np.integer[Any]]) -> Grouping:
        """The same groups for rows, each in the group that ``codes`` numbers."""
        return Grouping(self.codes[codes], self.names)


@dataclass(frozen=True, eq=False)
class Split:
    """Three parts of the rows.

    Parameters
    ----------
    rows : tuple of ndarray of int64
        Sorted row numbers of :data:`PARTS`.
    summary : dict
        For the card: how it was made, rows and groups of each part, and ``leak``.
    """

    rows: tuple[Codes, Codes, Codes]
    summary: Mapping[str, Any]

    @property
    def leak(self) -> str | None:
        """Description of the leakage; None if no genome is in more than one part."""
        return self.summary["leak"]  # type: ignore[no-any-return]


def genomes_of(ids: Sequence[str]) -> Grouping:
    """Genome of each row: the record that its chunk was cut from.

    Raises
    ------
    ValidationError
        Ids of another form; they are listed.
    """
    records = [place_of(name).record for name in ids]
    odd = [name for name, record in zip(ids, records, strict=True) if record is None]
    if odd:
        raise ValidationError(
            f"{counted(len(odd), 'id')} not of the form RECORD_chunk_NF1 (first "
            f"{', '.join(odd[:_SHOWN])}), so their genomes are "
            "unknown; make the data with nucpro dataset DATA --length N, or split by file (--split-by file)"
        )
    return Grouping.of([record for record in records if record is not None])


def read_families(path: Path) -> dict[str, str]:
    """Read a TSV of record and family, one per line; further columns and lines that start with ``#`` are ignored.

    As spreadsheets save it: with a byte order mark, in UTF-8 or UTF-16, any line ends, cells in double quotes.

    Raises
    ------
    DataError
        The file cannot be read, or a line is not of that form, or names a record twice.
    """
    families: dict[str, str] = {}
    for number, line in enumerate(_lines_of(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = [_unquoted(word) for word in line.split("\t")]
        if len(words) < 2 or not words[0] or not words[1]:
            raise DataError(f"{path}, line {number}: {line[:100]!r}, expected a record, a tab and its family")
        record, family = words[:2]
        if families.setdefault(record, family) != family:
            raise DataError(
                f"{path}, line {number}: {record} is of {families[record]} and of {family}; keep one of the lines"
            )
    return families


def _lines_of(path: Path) -> list[str]:
    content = read_input(path)
    for start, what in _NO_TEXT.items():
        if content.startswith(start):
            raise DataError(f"{path}: is {what}; save it as text with tabs between columns, in UTF-8")
    try:
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: is not UTF-8; save it as UTF-8, with tabs between columns"
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: holds binary data; name a TSV of record and family")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _unquoted(cell: str) -> str:
    cell = cell.strip()
    if len(cell) > 1 and cell.startswith('"') and cell.endswith('"'):
        return cell[1:-1].replace('""', '"').strip()
    return cell


def group(
    ids: Sequence[str],
    files: NDArray[np.int32],
    names: Sequence[str],
    options: TrainingOptions,
    organisms: Mapping[str, Organism] = MappingProxyType({}),
    genomes: Grouping | None = None,
) -> Grouping:
    """What must stay together.

    Parameters
    ----------
    ids : sequence of str
        One per row.
    files : ndarray of int32, shape [N]
        Number of each row's file.
    names : sequence of str
        Name of each file.
    options : TrainingOptions
        ``split_by``, ``families``, ``rank`` and ``taxonomy``.
    organisms : dict of str to Organism
        By record, as far as they are recorded.
    genomes : Grouping, optional
        Genome of each row, where it is known already.

    Returns
    -------
    Grouping
        Group of each row, and the names of the groups.

    Raises
    ------
    UsageError
        There is no taxonomy.
    ValidationError
        Ids without a genome, genomes that are not in the TSV of families, or genomes without a taxon.
    """
    if options.split_by is SplitBy.FILE:
        return Grouping(files.astype(np.int64), tuple(names))
    if options.split_by is SplitBy.ROW:
        return Grouping(np.arange(len(ids), dtype=np.int64), tuple(ids))
    genomes = genomes or genomes_of(ids)
    if options.split_by is SplitBy.TAXON:
        whole = Grouping.of(_taxa(genomes.names, organisms, options))
    elif options.families is not None:
        whole = Grouping.of(_families(genomes.names, options.families))
    else:
        return genomes
    return whole.over(genomes.codes)


def _families(records: Sequence[str], table: Path) -> list[str]:
    families = read_families(table)
    missing = [name for name in records if name not in families]
    if missing:
        raise ValidationError(
            f"{table}: {len(missing)} of {counted(len(records), 'record')} have no family there (first "
            f"{', '.join(missing[:_SHOWN])}); add them, each without a family as a family of its own"
        )
    return [families[name] for name in records]


def _taxa(records: Sequence[str], organisms: Mapping[str, Organism], options: TrainingOptions) -> list[str]:
    """Taxon of each record, or that of the rank above it."""
    taxa = [organisms[name].taxon if name in organisms else None for name in records]
    known = [taxon for taxon in taxa if taxon is not None]
    missing = [name for name, taxon in zip(records, taxa, strict=True) if taxon is None]
    if missing:
        raise ValidationError(
            f"{len(missing)} of {counted(len(records), 'record')} have no taxon (first "
            f"{', '.join(missing[:_SHOWN])}); run "
            "nucpro dataset DATA --length N again where the GenBank files are, which records it, or name "
            "families: --split-by family"
        )
    if options.rank is None:
        return [f"taxon {taxon}" for taxon in known]
    taxonomy = Taxonomy(options.taxonomy or options.data_dir / DUMP_NAME)
    above = {taxon: taxonomy.ancestor(taxon, options.rank) for taxon in set(known)}
    names = taxonomy.names(taxon for taxon in above.values() if taxon is not None)
    without = [taxon for taxon, found in above.items() if found is None]
    if without:
        logger.warning(
            "%d of %d taxa belong to no %s; each is kept together by itself",
            len(without),
            len(above),
            options.rank,
        )
    found = ((taxon, above[taxon]) for taxon in known)
    return [f"taxon {taxon}" if group is None else f"{names[group]} ({group})" for taxon, group in found]


def taxa_of(genomes: Grouping | None, organisms: Mapping[str, Organism]) -> Grouping | None:
    """Taxon of each row; None where it is not recorded of all."""
    if genomes is None or any(
        name not in organisms or organisms[name].taxon is None for name in genomes.names
    ):
        return None
    return Grouping.of([str(organisms[name].taxon) for name in genomes.names]).over(genomes.codes)


def split(
    groups: Grouping,
    labels: Codes,
    genomes: Grouping | None,
    options: TrainingOptions,
    fold: int | None = None,
) -> Split:
    """Divide rows into three parts, each class apart, so that both have their share in all parts.

    Of each class, the groups are put in a random order; the first are the test part, the next validation,
    the rest is trained on. Of 64 such orders that one is taken whose parts come nearest to the sizes asked for,
    since groups differ in size.

    Parameters
    ----------
    groups : Grouping
        What stays together.
    labels : ndarray of int64, shape [N]
        Class of each row.
    genomes : Grouping or None
        For the leak; None if ids do not contain them.
    options : TrainingOptions
        Sizes of the parts, seed, and what the groups are.
    fold : int, optional
        Which of ``options.folds`` is tested, from 0. Folds have about as many rows of each class; the next one
        validates, all other groups are for training.

    Returns
    -------
    Split
        Indices of the rows of each part, and a summary for the card.

    Raises
    ------
    ValidationError
        A group with rows of both classes, or fewer than three groups of a class.
    """
    label_of = _labels_of(groups, labels, options.split_by)
    _require_groups(label_of, options)
    if fold is None:
        parts = _by_fractions(groups, label_of, options)[groups.codes]
    else:
        parts = _by_folds(groups, labels, options, fold)
    train, validation, test = (np.flatnonzero(parts == part) for part in range(len(PARTS)))
    return Split((train, validation, test), _summary(groups, labels, genomes, parts, options, fold))


def _require_groups(label_of: Codes, options: TrainingOptions) -> None:
    for label in (0, 1):
        found, needed = int((label_of == label).sum()), options.folds or len(PARTS)
        if found < needed:
            why = f"{needed} folds need" if options.folds else "each of training, validation and test needs"
            raise ValidationError(
                f"too few groups to split by {options.split_by}: {found} with {CLASS_NAMES[label]} rows, and {why} "
                "one; extract more genomes, or choose another --split-by"
            )


def _by_fractions(groups: Grouping, label_of: Codes, options: TrainingOptions) -> Codes:
    """Part of each group."""
    sizes = np.bincount(groups.codes, minlength=len(groups.names))
    part_of = np.empty(len(groups.names), np.int64)
    for label in (0, 1):
        members = np.flatnonzero(label_of == label)
        generator = np.random.default_rng([options.seed, label])
        part_of[members] = _parts_of(sizes[members], (options.test, options.validation), generator)
    return part_of


def _by_folds(groups: Grouping, labels: Codes, options: TrainingOptions, fold: int) -> Codes:
    """Part of each row."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise UsageError("--folds needs scikit-learn: pip install 'nucpro[train]'") from error
    assert options.folds is not None
    folds = StratifiedGroupKFold(options.folds, shuffle=True, random_state=options.seed)
    held = [rows for _, rows in folds.split(np.zeros((len(labels), 1)), labels, groups.codes)]
    parts = np.zeros(len(labels), np.int64)
    parts[held[(fold + 1) % options.folds]] = PARTS.index("validation")
    parts[held[fold]] = PARTS.index("test")
    for number, name in enumerate(PARTS):
        if len(np.unique(labels[parts == number])) < 2:
            raise ValidationError(
                f"fold {fold + 1} of {options.folds}: its {name} rows are of one class; take fewer --folds, or extract "
                "more genomes"
            )
    return parts


def _labels_of(groups: Grouping, labels: Codes, by: SplitBy) -> Codes:
    """Class of each group."""
    viral = np.bincount(groups.codes, weights=labels, minlength=len(groups.names))
    sizes = np.bincount(groups.codes, minlength=len(groups.names))
    both = np.flatnonzero((viral > 0) & (viral < sizes))
    if len(both):
        names = ", ".join(groups.names[code] for code in both[:_SHOWN])
        raise ValidationError(
            f"{counted(len(both), 'group')} with rows of both classes when split by {by}: {names}; "
            "each must have one class: move the wrong files away"
        )
    return (viral > 0).astype(np.int64)


def _parts_of(sizes: Codes, fractions: tuple[float, float], generator: np.random.Generator) -> Codes:
    """Part of each group of one class."""
    best, least = None, np.inf
    for _ in range(_DRAWS):
        order = generator.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        test_end = _nearest(ends, fractions[0] * ends[-1], 1, len(ends) - 2)
        kept_end = _nearest(ends, ends[test_end - 1] + fractions[1] * ends[-1], test_end + 1, len(ends) - 1)
        found = np.array([ends[test_end - 1], ends[kept_end - 1] - ends[test_end - 1]]) / ends[-1]
        off = float(np.abs(found - fractions).sum())
        if off < least:
            best, least = (order, test_end, kept_end), off
        if least < _CLOSE_ENOUGH:
            break
    assert best is not None
    order, test_end, kept_end = best
    parts = np.zeros(len(sizes), np.int64)
    parts[order[:test_end]] = PARTS.index("test")
    parts[order[test_end:kept_end]] = PARTS.index("validation")
    return parts


def _nearest(ends: Codes, target: float, least: int, most: int) -> int:
    """Number of groups, within bounds, whose rows come nearest to a target."""
    counts = np.arange(least, most + 1)
    return int(counts[np.argmin(np.abs(ends[counts - 1] - target))])


def _summary(
    groups: Grouping,
    labels: Codes,
    genomes: Grouping | None,
    parts: Codes,
    options: TrainingOptions,
    fold: int | None,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "by": options.split_by.value,
        "rank": options.rank,
        "fold": None if fold is None else [fold + 1, options.folds],
        "test_rows_sha256": hashlib.sha256(
            np.flatnonzero(parts == PARTS.index("test")).tobytes()
        ).hexdigest(),
        "seed": options.seed,
        "fractions": {"validation": options.validation, "test": options.test},
        "leak": _leak(genomes, parts),
    }
    for number, name in enumerate(PARTS):
        here = parts == number
        rows = np.bincount(labels[here], minlength=2)
        summary[name] = {
            "rows": {CLASS_NAMES[label]: int(rows[label]) for label in (0, 1)},
            "groups": len(np.unique(groups.codes[here])),
        }
    return summary


def _leak(genomes: Grouping | None, parts: Codes) -> str | None:
    """Report the share of test rows from genomes that are also in the training part."""
    if genomes is None:
        return "the ids do not contain the genomes of the rows, so genomes may be in more than one part of the split"
    trained = np.zeros(len(genomes.names), bool)
    trained[genomes.codes[parts == 0]] = True
    tested = parts == PARTS.index("test")
    known = int(trained[genomes.codes[tested]].sum())
    if known == 0:
        return None
    total = int(tested.sum())
    return (
        f"{known} of {total} test rows ({100 * known / total:.0f}%) are of genomes that were also trained on, often "
        "from overlapping chunks: the metrics show how well known genomes are recognised, not how well "
        "unknown ones are classified"
    )
