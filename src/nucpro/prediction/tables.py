"""The result: three tables, of sequences, of chunks and of frames, each with a line that names its columns.

Stored units come in (:mod:`nucpro.prediction.work`) in the order of the input and are joined to whole records;
nothing but one record's sums is in memory. :func:`read_tables` reads the tables back for everything else
that is made of them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Any

from nucpro.errors import DataError, ValidationError
from nucpro.formats import AtomicFile, replace_file
from nucpro.prediction.contigs import InputFacts
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.verdict import DIGITS, ChunkScore, FrameScore, SequenceScore, prediction
from nucpro.prediction.work import StoredUnit

__all__ = [
    "Counts",
    "SequenceRow",
    "read_tables",
    "shown_score",
    "write_document",
    "write_original",
    "write_tables",
]

SEQUENCE_COLUMNS = (
    "record",
    "bases",
    "chunks",
    "scored_chunks",
    "viral_chunks",
    "score",
    "highest_frame",
    "highest_score",
    "prediction",
)
CHUNK_COLUMNS = ("record", "chunk", "start", "end", "frames", "best_frame", "score", "prediction")
FRAME_COLUMNS = ("record", "chunk", "frame", "residues", "score")


@dataclass
class Counts:
    """What became of everything that came in.

    Parameters
    ----------
    records, bases, chunks, frames : int
        Records of the input, their bases, their chunks, and the frames that were scored.
    chunks_without_frame : int
        Chunks in which no frame could be scored.
    unknown_frames : int
        Frames without a stop that were left out because most of their residues are X.
    cut_frames : int
        Frames that are longer than an encoder reads, and were cut there.
    viral, host, undetermined : int
        Records by verdict; the three give ``records``.
    """

    records: int = 0
    bases: int = 0
    chunks: int = 0
    frames: int = 0
    chunks_without_frame: int = 0
    unknown_frames: int = 0
    cut_frames: int = 0
    viral: int = 0
    host: int = 0
    undetermined: int = 0

    def require_all(self, facts: InputFacts) -> None:
        """Check that nothing vanished between input and output.

        Raises
        ------
        ValidationError
            A sum does not hold: an error of this program.
        """
        verdicts = self.viral + self.host + self.undetermined
        for what, expected, actual in (
            ("records", facts.records, self.records),
            ("bases", facts.bases, self.bases),
            ("chunks", facts.chunks, self.chunks),
            ("records", facts.records, verdicts),
        ):
            if expected != actual:
                raise ValidationError(f"{expected} {what} went in, {actual} came out; report this")


@dataclass(frozen=True)
class SequenceRow:
    """One line of the table of sequences, with the lines of the other tables that belong to it.

    Parameters
    ----------
    number : int
        Number of the record in the input, from 1.
    values : dict of str to str
        By column, as in the table.
    chunks : tuple of ChunkScore
        All chunks with their frames.
    """

    number: int
    values: dict[str, str]
    chunks: tuple[ChunkScore, ...]


def write_tables(
    folder: OutputFolder, units: Iterable[StoredUnit], facts: InputFacts
) -> tuple[Counts, dict[str, str]]:
    """Write the three tables.

    Parameters
    ----------
    folder : OutputFolder
        Where they go.
    units : iterable of StoredUnit
        All units, in the order of the input.
    facts : InputFacts
        What must be accounted for.

    Returns
    -------
    counts : Counts
        What was written.
    digests : dict of str to str
        SHA-256 of each table, by its name.

    Raises
    ------
    StoreError
        A table cannot be written; none is left half.
    DataError
        A unit cannot be read, or not everything is accounted for.
    """
    with (
        replace_file(folder.sequences) as sequences,
        replace_file(folder.chunks) as chunks,
        replace_file(folder.frames) as frames,
    ):
        tables = _Tables(sequences, chunks, frames)
        for unit in units:
            tables.add(unit)
        tables.finish()
        tables.counts.require_all(facts)
    files = {folder.sequences: sequences, folder.chunks: chunks, folder.frames: frames}
    return tables.counts, {path.name: file.written.digest for path, file in files.items()}


class _Tables:
    """The three tables while they are written."""

    def __init__(self, sequences: AtomicFile, chunks: AtomicFile, frames: AtomicFile) -> None:
        self.counts = Counts()
        self._sequences = sequences
        self._chunks = chunks
        self._frames = frames
        self._record: SequenceScore | None = None
        for table, columns in (
            (sequences, SEQUENCE_COLUMNS),
            (chunks, CHUNK_COLUMNS),
            (frames, FRAME_COLUMNS),
        ):
            table.write(_line(*columns).encode())

    def add(self, unit: StoredUnit) -> None:
        """Write the lines of one unit; those of its last record's sequence wait for the next."""
        chunk_lines: list[str] = []
        frame_lines: list[str] = []
        for piece in unit.pieces:
            # A record that goes on from the unit before begins with a chunk other than its first.
            if self._record is None or not piece.chunks or piece.chunks[0].number == 1:
                self._end_record()
                self._record = SequenceScore(piece.record, piece.bases)
            for chunk in piece.chunks:
                self._record.add(chunk)
                chunk_lines.append(_chunk_line(piece.record, chunk))
                frame_lines += [_frame_line(piece.record, frame) for frame in chunk.frames]
                self.counts.chunks_without_frame += not chunk.frames
        self.counts.chunks += len(chunk_lines)
        self.counts.frames += len(frame_lines)
        self.counts.unknown_frames += unit.unknown_frames
        self.counts.cut_frames += unit.cut_frames
        self._chunks.write("".join(chunk_lines).encode())
        self._frames.write("".join(frame_lines).encode())

    def finish(self) -> None:
        """Write the line of the last record."""
        self._end_record()

    def _end_record(self) -> None:
        record = self._record
        if record is None:
            return
        verdict = prediction(record.score)
        self.counts.records += 1
        self.counts.bases += record.bases
        setattr(self.counts, verdict, getattr(self.counts, verdict) + 1)
        highest = record.highest
        self._sequences.write(
            _line(
                record.record,
                record.bases,
                record.chunks,
                record.scored_chunks,
                record.viral_chunks,
                shown_score(record.score),
                "" if highest is None else f"chunk_{highest.chunk}{highest.frame}",
                shown_score(None if highest is None else highest.score),
                verdict,
            ).encode()
        )


def shown_score(score: float | None) -> str:
    """Score as tables show it; nothing where there is none."""
    return "" if score is None else f"{score:.{DIGITS}f}"


def _chunk_line(record: str, chunk: ChunkScore) -> str:
    best = chunk.best
    return _line(
        record,
        chunk.number,
        chunk.start,
        chunk.end,
        len(chunk.frames),
        "" if best is None else best.frame,
        shown_score(chunk.score),
        prediction(chunk.score),
    )


def _frame_line(record: str, frame: FrameScore) -> str:
    return _line(record, frame.chunk, frame.frame, frame.residues, shown_score(frame.score))


def _line(*values: object) -> str:
    return "\t".join(map(str, values)) + "\n"


def read_tables(folder: OutputFolder) -> Iterator[SequenceRow]:
    """Yield every record of the tables, with its chunks and frames; one record at a time is in memory.

    Raises
    ------
    DataError
        A table is missing, or the tables do not fit together.
    """
    try:
        with (
            folder.sequences.open(encoding="utf-8") as sequences,
            folder.chunks.open(encoding="utf-8") as chunks,
            folder.frames.open(encoding="utf-8") as frames,
        ):
            rows = _rows(sequences, SEQUENCE_COLUMNS)
            chunk_rows, frame_rows = _rows(chunks, CHUNK_COLUMNS), _rows(frames, FRAME_COLUMNS)
            for number, values in enumerate(rows, start=1):
                own = islice(chunk_rows, int(values["chunks"]))
                yield SequenceRow(number, values, tuple(_chunk(row, frame_rows) for row in own))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder.root}: its tables cannot be read together ({error}); predict again with --replace"
        ) from error


def _rows(lines: Iterable[str], columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for number, line in enumerate(lines):
        if number:
            yield dict(zip(columns, line.rstrip("\n").split("\t"), strict=True))


def _chunk(row: dict[str, str], frame_rows: Iterator[dict[str, str]]) -> ChunkScore:
    frames = tuple(
        FrameScore(int(frame["chunk"]), frame["frame"], int(frame["residues"]), float(frame["score"]))
        for frame in islice(frame_rows, int(row["frames"]))
    )
    return ChunkScore(int(row["chunk"]), int(row["start"]), int(row["end"]), frames)


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
