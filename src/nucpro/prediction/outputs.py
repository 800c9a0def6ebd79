"""Outputs of a prediction besides its tables: one row of :data:`OUTPUTS` per output.

An output is written from the tables (:func:`nucpro.prediction.tables.read_tables`) once they exist, also of a
prediction that was finished before. The command's options, the checks before the start, the run and ``--replace`` go
through the rows; for one more output, add one, a field of :class:`nucpro.prediction.options.PredictionOptions`, and a
writer. The rows are known without torch, which the writers import.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.formats import AtomicFile, replace_file
from nucpro.prediction.options import DEFAULT_PLOTS, OutputFolder, PredictionOptions

if TYPE_CHECKING:
    from nucpro.prediction.tables import SequenceRow
    from nucpro.prediction.verdict import FrameScore

__all__ = ["OUTPUTS", "Output", "asked_for", "files_of_a_result", "write_document", "write_original"]


@dataclass(frozen=True)
class Output:
    """One kind of optional files that are written from the tables.

    Parameters
    ----------
    option : str
        Option of ``nucpro predict``.
    field : str
        Field of :class:`PredictionOptions` that requests it.
    about : str
        Its help text.
    files : callable
        Files of this kind that a folder may contain; what ``--replace`` removes.
    write : callable
        Writes them, and returns those that it wrote.
    default : int, optional
        Of an option that takes a number: the one that is taken where it is given without.
    problems : callable
        Why they cannot be written on this machine, as pre-flight problems.
    """

    option: str
    field: str
    about: str
    files: Callable[[OutputFolder], Iterable[Path]]
    write: Callable[[OutputFolder, PredictionOptions], Sequence[Path]]
    default: int | None = None
    problems: Callable[[], list[str]] = list


def asked_for(options: PredictionOptions) -> list[Output]:
    """Outputs that options ask for."""
    return [output for output in OUTPUTS if getattr(options, output.field)]


def files_of_a_result(folder: OutputFolder) -> Iterator[Path]:
    """Existing files with the names of a result, of any origin; the record first."""
    others = (path for output in OUTPUTS for path in output.files(folder))
    return (path for path in (folder.record, *folder.tables, *others) if os.path.lexists(path))


_FRAME_COLUMNS = ("Sequence_ID", "Prediction", "score1", "score2")
_CHUNK_COLUMNS = ("Modified_ID", "Is_Virus")
_VIRUS, _OTHERS = "virus", "others"


def write_original(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write ``prediction_results.txt`` and ``prediction_results_highestscore.csv``, both tab-separated.

    The first has one line per frame (its id as in the training data): ``score1`` is the probability of the
    others, ``score2`` that of a virus. The second has one line per chunk in which a frame was scored: it is
    viral where the highest score for a virus is not below the highest against.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        A file cannot be written.
    """
    from nucpro.prediction.tables import read_tables  # noqa: PLC0415

    with replace_file(folder.original_frames) as frames, replace_file(folder.original_chunks) as chunks:
        _write_rows(frames, [_FRAME_COLUMNS])
        _write_rows(chunks, [_CHUNK_COLUMNS])
        for row in read_tables(folder):
            for chunk in row.chunks:
                name = f"{row.values['record']}_chunk_{chunk.number}"
                _write_rows(frames, [_frame_row(name, frame) for frame in chunk.frames])
                if scores := [frame.score for frame in chunk.frames]:
                    _write_rows(chunks, [(name, str(max(scores) >= 1 - min(scores)))])
    return folder.original_frames, folder.original_chunks


def _frame_row(chunk: str, frame: FrameScore) -> tuple[str, ...]:
    from nucpro.prediction.tables import shown_score  # noqa: PLC0415

    verdict = _VIRUS if frame.score >= 0.5 else _OTHERS
    return (f"{chunk}{frame.frame}", verdict, shown_score(1 - frame.score), shown_score(frame.score))


def _write_rows(file: AtomicFile, rows: Iterable[tuple[str, ...]]) -> None:
    text = StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode())


def write_document(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write everything as one JSON document: what made it, and each sequence with its chunks and frames.

    Raises
    ------
    DataError
        The tables or their record cannot be read.
    StoreError
        The file cannot be written.
    """
    from nucpro.prediction.tables import read_tables  # noqa: PLC0415
    from nucpro.prediction.work import read_record  # noqa: PLC0415

    # What else was made of the tables is no part of the prediction.
    record = {name: value for name, value in read_record(folder.record).items() if name != "made"}
    with replace_file(folder.document) as file:
        file.write(f'{{"prediction": {_json(record)},\n"sequences": ['.encode())
        for row in read_tables(folder):
            # One line per sequence, so that a large document can be read line by line.
            separator = "\n" if row.number == 1 else ",\n"
            file.write((separator + _json(_sequence(row))).encode())
        file.write(b"\n]}\n")
    return (folder.document,)


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


def _write_plots(folder: OutputFolder, options: PredictionOptions) -> Sequence[Path]:
    from nucpro.prediction.plot import write_plots  # noqa: PLC0415

    return write_plots(folder, options.plots, options.plot_format)


def _plotting_problems() -> list[str]:
    from nucpro.prediction.plot import plotting_problems  # noqa: PLC0415

    return plotting_problems()


def _by(module: str, writer: str) -> Callable[[OutputFolder, PredictionOptions], Sequence[Path]]:
    """Give a writer of another module, which is imported when it writes."""

    def write(folder: OutputFolder, options: PredictionOptions) -> Sequence[Path]:
        found = getattr(importlib.import_module(f"nucpro.prediction.{module}"), writer)
        written: Sequence[Path] = found(folder, options)
        return written

    return write


OUTPUTS = (
    Output(
        "--json",
        "json",
        "also write everything as one JSON document",
        lambda folder: [folder.document],
        write_document,
    ),
    Output(
        "--original-names",
        "original_names",
        "also write prediction_results.txt and prediction_results_highestscore.csv, as VirNucPro does",
        lambda folder: [folder.original_frames, folder.original_chunks],
        write_original,
    ),
    Output(
        "--viral-fasta",
        "viral_fasta",
        "also write the viral sequences: viral.fasta",
        lambda folder: [folder.viral_fasta],
        _by("regions", "write_fasta"),
    ),
    Output(
        "--gff3",
        "gff3",
        "also write the viral frames of viral sequences as GFF3 (from 1, both ends included): viral_frames.gff3",
        lambda folder: [folder.gff3],
        _by("regions", "write_gff3"),
    ),
    Output(
        "--bed",
        "bed",
        "also write these frames as BED (from 0, end excluded): viral_frames.bed",
        lambda folder: [folder.bed],
        _by("regions", "write_bed"),
    ),
    Output(
        "--html",
        "html",
        "also write one page with counts, scores and the viral sequences: summary.html",
        lambda folder: [folder.html],
        _by("summary", "write_html"),
    ),
    Output(
        "--multiqc",
        "multiqc",
        "also write a file for MultiQC: nucpro_mqc.json",
        lambda folder: [folder.multiqc],
        _by("summary", "write_multiqc"),
    ),
    Output(
        "--plot",
        "plots",
        "also plot the scores along the N longest sequences (default for N: %(const)s)",
        lambda folder: folder.pictures(),
        _write_plots,
        DEFAULT_PLOTS,
        _plotting_problems,
    ),
)
"""All of them, in the order of the help."""
