"""The result: three tables, of sequences, of chunks and of frames, each with a line that names its columns.

Stored units come in (:mod:`nucpro.prediction.work`) in the order of the input and are joined to whole records;
nothing but one record's sums is in memory. :func:`read_tables` reads the tables back for everything else
that is built from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path

from nucpro.errors import DataError, ValidationError, reason_of
from nucpro.folder.paths import VIRAL
from nucpro.formats import AtomicFile, replace_file
from nucpro.formats.opening import open_input
from nucpro.prediction.contigs import InputFacts
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.verdict import DIGITS, ChunkScore, FrameScore, Rules, SequenceScore
from nucpro.prediction.work import StoredPiece, StoredUnit

__all__ = ["Counts", "SequenceRow", "read_tables", "shown_score", "stored_units", "write_tables"]

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
    """Counts of the input by outcome.

    Parameters
    ----------
    records, bases, chunks, frames : int
        Records of the input, their bases, their chunks, and the frames that were scored.
    chunks_without_frame : int
        Chunks in which no frame could be scored.
    unknown_frames : int
        Frames without a stop that were left out because most of their residues are X.
    cut_frames : int
        Frames that are longer than an encoder reads, and were truncated.
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
        """Check that all input is accounted for in the output.

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

    @property
    def is_viral(self) -> bool:
        """Whether the verdict is viral."""
        return self.values["prediction"] == VIRAL


def write_tables(
    folder: OutputFolder, units: Iterable[StoredUnit], facts: InputFacts, rules: Rules
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
    rules : Rules
        Of the verdicts.

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
        tables = _Tables(rules, sequences, chunks, frames)
        for unit in units:
            tables.add(unit)
        tables.finish()
        tables.counts.require_all(facts)
    files = {folder.sequences: sequences, folder.chunks: chunks, folder.frames: frames}
    return tables.counts, {path.name: file.written.digest for path, file in files.items()}


class _Tables:
    """The three tables while they are written."""

    def __init__(self, rules: Rules, sequences: AtomicFile, chunks: AtomicFile, frames: AtomicFile) -> None:
        self.counts = Counts()
        self._rules = rules
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
            # A record that continues from the previous unit begins with a chunk other than its first.
            if self._record is None or not piece.chunks or piece.chunks[0].number == 1:
                self._end_record()
                self._record = SequenceScore(piece.record, piece.bases, self._rules)
            for chunk in piece.chunks:
                self._record.add(chunk)
                chunk_lines.append(_chunk_line(piece.record, chunk, self._rules))
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
        verdict = self._rules.verdict(record.score, record.bases)
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


def _chunk_line(record: str, chunk: ChunkScore, rules: Rules) -> str:
    best = chunk.best
    return _line(
        record,
        chunk.number,
        chunk.start,
        chunk.end,
        len(chunk.frames),
        "" if best is None else best.frame,
        shown_score(chunk.score),
        rules.verdict(chunk.score),
    )


def _frame_line(record: str, frame: FrameScore) -> str:
    return _line(record, frame.chunk, frame.frame, frame.residues, shown_score(frame.score))


def _line(*values: object) -> str:
    return "\t".join(map(_cell, values)) + "\n"


def _cell(value: object) -> str:
    """Value as a cell: with a quote in it it is quoted, as pandas, R and spreadsheets expect of a table."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def _uncelled(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _opened(path: Path) -> TextIOWrapper:
    return TextIOWrapper(BufferedReader(open_input(path)), encoding="utf-8")


def stored_units(folder: OutputFolder) -> Iterator[StoredUnit]:
    """Yield the records of the tables as the units that could have produced them."""
    for row in read_tables(folder):
        yield StoredUnit((StoredPiece(row.values["record"], int(row.values["bases"]), row.chunks),), 0, 0)


def read_tables(folder: OutputFolder) -> Iterator[SequenceRow]:
    """Yield every record of the tables, with its chunks and frames; one record at a time is in memory.

    Raises
    ------
    DataError
        A table is missing, or the tables do not fit together.
    """
    try:
        with (
            _opened(folder.sequences) as sequences,
            _opened(folder.chunks) as chunks,
            _opened(folder.frames) as frames,
        ):
            rows = _rows(sequences, SEQUENCE_COLUMNS)
            chunk_rows, frame_rows = _rows(chunks, CHUNK_COLUMNS), _rows(frames, FRAME_COLUMNS)
            for number, values in enumerate(rows, start=1):
                own = islice(chunk_rows, int(values["chunks"]))
                yield SequenceRow(number, values, tuple(_chunk(row, frame_rows) for row in own))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder.root}: its tables cannot be read together ({reason_of(error)}); predict again with --replace"
        ) from error


def _rows(lines: Iterable[str], columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for number, line in enumerate(lines):
        if number:
            cells = map(_uncelled, line.rstrip("\n").split("\t"))
            yield dict(zip(columns, cells, strict=True))


def _chunk(row: dict[str, str], frame_rows: Iterator[dict[str, str]]) -> ChunkScore:
    frames = tuple(
        FrameScore(int(frame["chunk"]), frame["frame"], int(frame["residues"]), float(frame["score"]))
        for frame in islice(frame_rows, int(row["frames"]))
    )
    return ChunkScore(int(row["chunk"]), int(row["start"]), int(row["end"]), frames)
