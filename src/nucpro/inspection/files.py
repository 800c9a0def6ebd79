"""Description of a file or folder in plain values, for people and scripts.

Reads ``.pt`` files by :mod:`nucpro.formats`, FASTA files record by record, and of a data folder names and sizes only;
what comes out are dicts, lists, strings and numbers, ready for JSON. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucpro.classifier.card import read_card, read_training
from nucpro.classifier.options import SCORES
from nucpro.errors import NucproError, PreflightError
from nucpro.folder import selection
from nucpro.folder.inventory import numbers_in
from nucpro.folder.kinds import CARD_NAME, Kind, holds_data, known_folder
from nucpro.folder.paths import CATEGORIES, CLASS_NAMES, DataFolder
from nucpro.formats import MergedFile, VectorFile, read_merged, read_meta, read_vectors
from nucpro.formats.fasta import digest_line, stream
from nucpro.formats.opening import open_input
from nucpro.formats.sequences import ALPHABETS, DNA_WIDTH, LIMITS, SequenceType, Tally
from nucpro.genomes.frames import place_of
from nucpro.genomes.paths import find_genomes
from nucpro.inspection.others import describe_file, describe_folder
from nucpro.state import history, lock
from nucpro.state.checkpoint import Fingerprint
from nucpro.vectors.outputs import Content

__all__ = ["inspect"]

Facts = dict[str, Any]

_TRAINING = ("epochs", "best_epoch", "batch_size", "learning_rate", "ended")
_SHOWN = 3
_OUTPUTS = ("dna", "protein", "merged")
_WHAT = {"dna": "DNABERT-S vectors", "protein": "protein vectors", "merged": "merged vectors"}


def inspect(path: Path) -> Facts:
    """Describe a file of vectors, a sequence file, a data folder, or the folder of a model.

    Parameters
    ----------
    path : Path
        A ``.pt`` file of a data folder, a file of vectors in another format, a FASTA or FASTQ file (plain or
        compressed), a data folder, or the folder of a classifier or an encoder.

    Returns
    -------
    dict
        ``what`` it is, its ``path``, and its description.

    Raises
    ------
    DataError
        There is no such file or folder.
    StoreError
        A ``.pt`` file is damaged, hostile or of another schema.
    FastaError
        Another file cannot be read as FASTA or FASTQ.
    """
    if (path / CARD_NAME).is_file():
        return _model(path)
    if path.is_dir():
        known = known_folder(path)
        is_data = known is None or known.kind is Kind.DATA
        return _folder(DataFolder(path)) if is_data and holds_data(path) else describe_folder(path, known)
    if not os.path.lexists(path):
        raise PreflightError(
            [f"{path}: no such file or folder; name a file of vectors or sequences, a data folder or a model"]
        )
    if (facts := describe_file(path, _rows)) is not None:
        return facts
    with open_input(path) as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    return _vectors(path) if is_archive or path.suffix == ".pt" else _sequences(path)


def _rows(content: Content) -> Facts:
    """Vectors that ``nucpro embed`` wrote in another format than ``.pt``."""
    rows, width = content.vectors.shape
    return {
        "what": _WHAT[content.sequence_type],
        "rows": rows,
        "width": width,
        "dtype": str(content.vectors.dtype),
        "ids": _ids(content.ids),
        "values": _values(content.vectors, is_merged=False),
        "meta": content.meta,
    }


def _model(path: Path) -> Facts:
    """Summary of the card of a classifier, and when it was trained."""
    card, digest = read_card(path)
    record = read_training(path, digest)
    metrics, split = card.metrics, card.split
    test = metrics.get("test") or {}
    return {
        "what": "classifier",
        "path": str(path),
        "trained": None if record is None else record.ended,
        "columns": f"{' and '.join(card.sides)}: {card.input_width}",
        "encoders": {
            sequence_type: (made_by or {}).get("id") for sequence_type, made_by in card.encoders.items()
        },
        "chunk_length": card.chunk_length,
        "data": card.data,
        "split": {name: split[name] for name in ("by", "rank", "fold", "seed", "leak") if split.get(name)},
        "parts": {name: (split.get(name) or {}).get("rows") for name in ("train", "validation", "test")},
        "training": {name: card.training.get(name) for name in _TRAINING},
        "test": {name: test[name] for name in SCORES if name in test} or None,
        "confusion": metrics.get("confusion"),
        "calibration": card.calibration,
        "lengths": {
            length: {name: (found.get("test") or {}).get(name) for name in ("accuracy", "mcc", "auroc")}
            for length, found in card.lengths.items()
        },
        "weights_sha256": digest,
        "software": None if record is None else record.software,
    }


def _vectors(path: Path) -> Facts:
    kind = read_meta(path).kind
    file: VectorFile = (
        read_merged(path)
        if kind == "merged"
        else read_vectors(path, SequenceType.DNA if kind == "dna" else SequenceType.PROTEIN)
    )
    facts: Facts = {
        "what": _WHAT[kind],
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": file.digest,
    }
    facts["rows"], facts["width"] = file.vectors.shape
    facts["dtype"] = str(file.vectors.dtype)
    if isinstance(file, MergedFile):
        facts["label"] = file.label
        facts["class"] = None if file.label is None else CLASS_NAMES[file.label]
    facts["ids"] = _ids(file.ids)
    facts["values"] = _values(file.vectors, kind == "merged")
    facts["meta"] = file.meta
    return facts


def _values(vectors: NDArray[np.float32], is_merged: bool) -> Facts:
    parts = {"all": vectors}
    if is_merged and vectors.shape[1] > DNA_WIDTH:
        parts = {"dna": vectors[:, :DNA_WIDTH], "protein": vectors[:, DNA_WIDTH:]}
    facts: Facts = {name: _range(part) for name, part in parts.items()}
    facts["zero_rows"] = int((~vectors.any(axis=1)).sum())
    facts["repeated_rows"] = len(vectors) - len({hashlib.sha256(row).digest() for row in vectors})
    return facts


def _range(part: NDArray[np.float32]) -> Facts:
    norms = np.linalg.norm(part, axis=1)
    return {
        "columns": part.shape[1],
        "least": float(part.min()),
        "greatest": float(part.max()),
        "mean": float(part.mean(dtype=np.float64)),
        "deviation": float(part.std(dtype=np.float64)),
        "norms": {
            "least": float(norms.min()),
            "median": float(np.median(norms)),
            "greatest": float(norms.max()),
        },
    }


def _ids(names: Iterable[str]) -> Facts:
    """First and last ids, and the number of source records if the ids show it."""
    names = list(names)
    records = {place_of(name).record for name in names}
    facts: Facts = {"first": names[:_SHOWN], "last": names[-1:]}
    facts["repeated"] = len(names) - len(set(names))
    if None not in records:
        facts["source_records"] = len(records)
    return facts


def _sequences(path: Path) -> Facts:
    names: list[str] = []
    lengths: list[int] = []
    letters: Counter[int] = Counter()
    tally = Tally(0, 0, 0)
    digest = hashlib.sha256()
    for name, sequence in stream(path, fastq=True):
        names.append(name)
        lengths.append(len(sequence))
        letters.update(Counter(sequence))
        tally += Tally.of(sequence)
        digest.update(digest_line(name, sequence))
    sequence_type = tally.sequence_type
    limit = LIMITS[sequence_type]
    return {
        "what": "nucleotide sequences" if sequence_type is SequenceType.DNA else "protein sequences",
        "path": str(path),
        "bytes": path.stat().st_size,
        "records": len(names),
        "letters": sum(lengths),
        "lengths": {"least": min(lengths), "median": float(np.median(lengths)), "greatest": max(lengths)},
        "empty": lengths.count(0),
        "over_limit": {"limit": limit, "records": sum(length > limit for length in lengths)},
        "composition": {chr(letter): count for letter, count in letters.most_common()},
        "foreign_letters": sum(
            n for letter, n in letters.items() if chr(letter) not in ALPHABETS[sequence_type]
        ),
        "ids": _ids(names),
        "input_sha256": digest.hexdigest(),
    }


def _folder(folder: DataFolder) -> Facts:
    sources, genomes = folder.walk_sources(), find_genomes(folder.root)
    files: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    examples: dict[str, Path] = {}
    for source in sources:
        found = files.setdefault(source.category or "other", Counter())
        found["sources"] += 1
        for number in numbers_in(source.nucleotide_folder) or ():
            pair = source.pair(number)
            found["split"] += 1
            for kind, path in zip(
                _OUTPUTS, (pair.dna_vectors, pair.protein_vectors, pair.merged), strict=True
            ):
                stamp = Fingerprint.of(path)
                if stamp is not None:
                    found[kind] += 1
                    sizes[kind] += stamp.size
                    examples.setdefault(kind, path)
    return {
        "what": "data folder",
        "path": str(folder.root),
        "run": lock.state(folder.lock),
        "genomes": {
            "pairs": len(genomes.pairs),
            "not_used": len(genomes.without_partner) + len(genomes.others),
        },
        "files": {name: _counts(files[name]) for name in (*CATEGORIES, "other") if name in files},
        "bytes": {kind: sizes[kind] for kind in _OUTPUTS},
        "examples": {kind: _example(path) for kind, path in examples.items()},
        "selection": _selection(folder),
        "runs": _runs(folder),
    }


def _counts(found: Counter[str]) -> Facts:
    return {name: found[name] for name in ("sources", "split", *_OUTPUTS)}


def _example(path: Path) -> Facts:
    """Metadata of the first file of a kind; ``nucpro validate`` finds files that differ."""
    try:
        look = read_meta(path)
    except NucproError as error:
        return {"path": str(path), "problem": str(error)}
    return {"path": str(path), "rows": look.count, "width": look.width, "meta": look.meta}


def _selection(folder: DataFolder) -> Facts | None:
    try:
        recorded = selection.load(folder)
    except NucproError as error:
        return {"problem": str(error)}
    if recorded is None:
        return None
    return {
        "hosts": len(recorded.hosts),
        "reason": recorded.reason,
        "sequences_per_file": recorded.sequences_per_file,
    }


def _runs(folder: DataFolder) -> Facts:
    runs = history.read(folder)
    facts: Facts = {"recorded": len(runs)}
    if runs:
        last = runs[-1]
        facts["last"] = {
            "side": last.facts.get("side"),
            "started": datetime.fromtimestamp(last.started, UTC).isoformat(timespec="seconds"),
            "files": len(last.files),
            "ended": last.how,
        }
    return facts
