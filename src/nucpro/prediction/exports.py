"""The same result in other forms: under VirNucPro's names, and as one JSON document.

Both are made of the tables (:mod:`nucpro.prediction.tables`), so they can be made at any later time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

from nucpro.prediction.paths import OutputFolder
from nucpro.prediction.tables import SequenceRow, read_tables, shown_score
from nucpro.prediction.verdict import FrameScore
from nucpro.store import AtomicFile, replace_file

__all__ = ["write_document", "write_original"]

_FRAME_COLUMNS = ("Sequence_ID", "Prediction", "score1", "score2")
_CHUNK_COLUMNS = ("Modified_ID", "Is_Virus")
_VIRUS, _OTHERS = "virus", "others"


def write_original(folder: OutputFolder) -> None:
    """Write ``prediction_results.txt`` and ``prediction_results_highestscore.csv``, both tab-separated.

    The first has a line a frame (its id as in the training data): ``score1`` is the probability of the others,
    ``score2`` that of a virus. The second has a line a chunk in which a frame was scored: it is viral where
    the highest score for a virus is not below the highest against.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        A file cannot be written.
    """
    with replace_file(folder.original_frames) as frames, replace_file(folder.original_chunks) as chunks:
        _write_rows(frames, [_FRAME_COLUMNS])
        _write_rows(chunks, [_CHUNK_COLUMNS])
        for row in read_tables(folder):
            for chunk in row.chunks:
                name = f"{row.values['record']}_chunk_{chunk.number}"
                _write_rows(frames, [_frame_row(name, frame) for frame in chunk.frames])
                if scores := [frame.score for frame in chunk.frames]:
                    _write_rows(chunks, [(name, str(max(scores) >= 1 - min(scores)))])


def _frame_row(chunk: str, frame: FrameScore) -> tuple[str, ...]:
    verdict = _VIRUS if frame.score >= 0.5 else _OTHERS
    return (f"{chunk}{frame.frame}", verdict, shown_score(1 - frame.score), shown_score(frame.score))


def _write_rows(file: AtomicFile, rows: Iterable[tuple[str, ...]]) -> None:
    text = StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode())


def write_document(folder: OutputFolder, record: Mapping[str, Any]) -> None:
    """Write everything as one JSON document: what made it, and each sequence with its chunks and frames.

    Parameters
    ----------
    folder : OutputFolder
        Of the prediction.
    record : mapping
        What made the tables, as in ``prediction.json``.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        The file cannot be written.
    """
    with replace_file(folder.document) as file:
        file.write(f'{{"prediction": {_json(record)},\n"sequences": ['.encode())
        for row in read_tables(folder):
            # A line a sequence, so that whoever has a large document can read it line by line.
            separator = "\n" if row.number == 1 else ",\n"
            file.write((separator + _json(_sequence(row))).encode())
        file.write(b"\n]}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sequence(row: SequenceRow) -> dict[str, Any]:
    text = ("record", "highest_frame", "prediction")
    values = {name: value if name in text else _number(value) for name, value in row.values.items()}
    chunks = [
        {
            "chunk": chunk.number,
            "start": chunk.start,
            "end": chunk.end,
            "score": chunk.score,
            "frames": [_frame(frame) for frame in chunk.frames],
        }
        for chunk in row.chunks
    ]
    # The table's number of chunks gives way to the chunks themselves.
    return {**values, "highest_frame": values["highest_frame"] or None, "chunks": chunks}


def _frame(frame: FrameScore) -> dict[str, Any]:
    return {"frame": frame.frame, "residues": frame.residues, "score": frame.score}


def _number(value: str) -> int | float | None:
    if not value:
        return None
    return float(value) if "." in value else int(value)
