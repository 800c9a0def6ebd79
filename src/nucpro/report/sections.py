"""Sections of the page about files and runs: each turns a part of the subject into markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nucpro.errors import counted, human_time
from nucpro.folder.paths import CLASS_NAMES, SEED, VIRAL
from nucpro.formats.records import part_of
from nucpro.formats.sequences import SequenceType
from nucpro.report.charts import Markup, Series, bars, element, histogram, items, join, line, table
from nucpro.report.sample import Sample
from nucpro.report.subject import FileState, Output, Subject
from nucpro.state.history import DONE, FileDone, Run

__all__ = ["Throughput", "lengths", "provenance", "rates", "runs", "selection", "throughput", "validation"]

_SHOWN_FILES = 300
_SHOWN_RUNS = 50
_WINDOWS = 150
_BINS = 30
_REASONS = {
    "recorded": "as recorded by an earlier run",
    "existing": "files that had outputs already",
    "seeded": f"sampled with seed {SEED}",
    "all": "all full files",
}
_NO_END = "killed, or still running"


def selection(subject: Subject) -> Markup:
    """Files and records by category, and the balance of the classes."""
    if not subject.files:
        return element("p", "No files are selected.")
    colours = {name: VIRAL if name == VIRAL else "host" for name in (c.category for c in subject.categories)}
    rows = [
        (
            c.category,
            c.records,
            f"{counted(c.files, 'file', ',')}, {counted(c.records, 'sequence', ',')}",
            colours[c.category],
        )
        for c in subject.categories
    ]
    viral, host = subject.records(1), subject.records(0)
    share = viral / (viral + host) if viral + host else 0.0
    balance = element(
        "div",
        element("span", style=f"width:{share:.3%}", class_="fill viral"),
        element("span", style=f"width:{1 - share:.3%}", class_="fill host"),
        class_="balance",
        aria_hidden="true",
    )
    return join(
        (
            element(
                "p",
                f"{viral:,} viral and {counted(host, 'host sequence', ',')} ({share:.1%} viral). "
                f"Hosts: {_REASONS.get(subject.reason, subject.reason)}.",
            ),
            balance,
            bars("Sequences by category", rows),
        )
    )


def validation(subject: Subject) -> Markup:
    """Table of files: by category, then file by file with those that need attention first."""
    by_category = [
        (
            c.category,
            f"{c.files:,}",
            f"{c.records:,}",
            *(f"{c.outputs[output]:,}" for output in Output),
        )
        for c in subject.categories
    ]
    headers = ["category", "#files", "#sequences", *(f"#{output}" for output in Output)]
    ordered = sorted(subject.files, key=lambda file: file.output is Output.VALIDATED)
    title = "Files, those that need attention first"
    if len(ordered) > _SHOWN_FILES:
        title = f"{title} ({_SHOWN_FILES:,} of {len(ordered):,} are shown)"
    files = [_file_row(file) for file in ordered[:_SHOWN_FILES]]
    return join(
        (
            table("Merged files by category", headers, by_category),
            element(
                "details",
                element("summary", f"All {counted(len(ordered), 'file', ',')}"),
                table(title, ["file", "class", "#sequences", "merged file"], files),
            ),
        )
    )


def _file_row(file: FileState) -> Sequence[object]:
    mark = element("span", file.output, class_=f"state {file.output.name.lower()}")
    return (file.pair.key, CLASS_NAMES[file.pair.label], f"{file.records:,}", mark)


def lengths(sample: Sample) -> Markup:
    """Distributions of both sequence types."""
    read = f"All sequences of {counted(len(sample.pairs), 'file', ',')} that were read"
    if len(sample.pairs) < sample.available:
        read = f"{read}, of {sample.available:,} that could be"
    charts = [
        _distribution("Nucleotide sequences", sample.base_lengths, "bases"),
        _distribution("Protein sequences", sample.residue_lengths, "residues"),
    ]
    return join((element("p", f"{read}."), element("div", *charts, class_="pair")))


def _distribution(title: str, counts: Mapping[int, Mapping[int, int]], unit: str) -> Markup:
    found = sorted({length for of_class in counts.values() for length in of_class})
    if not found:
        return element("p", f"{title}: none.")
    if len(found) == 1:
        return element("p", f"{title}: all have {found[0]:,} {unit}.")
    low, high = found[0], found[-1] + 1
    bins = min(_BINS, high - low)
    edges = [low + (high - low) * place / bins for place in range(bins + 1)]
    series = []
    for label in (1, 0):
        values, total = [0.0] * bins, sum(counts[label].values()) or 1
        for length, number in counts[label].items():
            values[min(bins - 1, int((length - low) * bins / (high - low)))] += number / total
        name = CLASS_NAMES[label]
        series.append(Series(name, name, values))
    return histogram(f"{title}, {found[0]:,} to {found[-1]:,} {unit}", edges, series, unit)


@dataclass(frozen=True)
class Throughput:
    """Sequences per second of a run that extracted.

    Parameters
    ----------
    unit : str
        Unit of the times: seconds, minutes or hours, by the length of the run.
    points : list of (float, float)
        Time from the start, in that unit, and sequences per second until then.
    seconds : float
        Time of the extraction.
    records, tokens : int
        What was extracted in it.
    """

    unit: str
    points: list[tuple[float, float]]
    seconds: float
    records: int
    tokens: int

    @property
    def mean(self) -> float:
        """Sequences per second of the whole run."""
        return self.records / max(self.seconds, 1e-9)


def throughput(run: Run) -> Throughput:
    """Throughput of a run that made files, as the page and the figure show it."""
    start = run.files[0].time - run.files[0].elapsed
    unit, divisor = _time_unit(run.files[-1].time - start)
    points = [
        ((window[-1].time - start) / divisor, sum(file.records for file in window) / seconds)
        for window in _windows(run.files)
        if (seconds := sum(file.elapsed for file in window)) > 0
    ]
    seconds = sum(file.elapsed for file in run.files)
    records, tokens = sum(file.records for file in run.files), sum(file.tokens for file in run.files)
    return Throughput(unit, points, seconds, records, tokens)


def rates(run: Run | None) -> Markup:
    """Throughput over time and times of the stages, of the last run that extracted."""
    if run is None:
        return element("p", "No run that made protein files is recorded here.")
    curve = throughput(run)
    device = part_of(run.facts, "options").get("device", "unknown device")
    text = (
        f"Last extraction: {_when(run.started)} on {device}; "
        f"{counted(len(run.files), 'file', ',')}, {counted(curve.records, 'sequence', ',')} "
        f"in {human_time(curve.seconds)}: {curve.mean:,.0f} sequences/s, "
        f"{curve.tokens / max(curve.seconds, 1e-9):,.0f} tokens/s."
    )
    stages = [(name, took, human_time(took), "host") for name, took in run.stages]
    chart = (
        line("Throughput while extracting", curve.points, (f"time ({curve.unit})", "sequences/s"))
        if len(curve.points) > 1
        else element("p", "One file was made: there is no curve to draw.")
    )
    times = element("div", element("h3", "Time of each stage"), bars("Time of each stage", stages))
    return join((element("p", text), element("div", chart, times, class_="pair")))


def _windows(files: Sequence[FileDone]) -> list[Sequence[FileDone]]:
    """Neighbouring files together, so that a curve has a bounded number of points."""
    size = -(-len(files) // _WINDOWS)
    return [files[place : place + size] for place in range(0, len(files), size)]


def runs(subject: Subject) -> Markup:
    """Every run: what it was started with, what it made, how it ended."""
    if not subject.runs:
        return element("p", "No run is recorded here.")
    rows = [_run_row(run) for run in reversed(subject.runs[-_SHOWN_RUNS:])]
    made = sum(len(run.files) for run in subject.runs)
    stopped = sum(run.how != DONE for run in subject.runs)
    cut = f"; {stopped:,} failed, or were interrupted or killed" if stopped else ""
    text = f"{counted(len(subject.runs), 'run', ',')} made {counted(made, 'file', ',')}{cut}."
    headers = [
        "started (UTC)",
        "sequence type",
        "engine",
        "device",
        "#files",
        "#sequences",
        "#time",
        "ended",
        "nucpro",
    ]
    failures = [f"{_when(run.started)}: {run.message}" for run in subject.runs if run.message][-5:]
    return join(
        (
            element("p", text),
            table("Runs, the last one first", headers, rows),
            element("h3", "Why runs failed") if failures else Markup(),
            items(failures, class_="messages"),
        )
    )


def _run_row(run: Run) -> Sequence[object]:
    facts = run.facts
    return (
        _when(run.started),
        facts.get("side", "unknown"),
        facts.get("engine", "unknown"),
        part_of(facts, "options").get("device", "unknown"),
        f"{len(run.files):,}",
        f"{sum(file.records for file in run.files):,}",
        human_time(max(0.0, run.last - run.started)),
        run.how or _NO_END,
        part_of(facts, "software").get("nucpro", "unknown"),
    )


def provenance(subject: Subject, sample: Sample) -> Markup:
    """Models and options that the files themselves name, and the software of the last run."""
    parts: list[Markup] = []
    for sequence_type, meta, files in sample.metas:
        title = "DNA vectors" if sequence_type is SequenceType.DNA else "Protein vectors"
        asked = sum(number for other, _, number in sample.metas if other is sequence_type)
        if meta is None:
            parts.append(
                element(
                    "p", f"{title}: {files:,} of {counted(asked, 'file', ',')} have no provenance metadata."
                )
            )
            continue
        values = {"columns": meta.get("width"), **part_of(meta, "made_by")}
        parts.append(
            _values(f"{title}, in the metadata of {files:,} of {counted(asked, 'file', ',')}", values)
        )
    if subject.runs:
        facts = subject.runs[-1].facts
        parts.append(_values("Software of the last run", part_of(facts, "software")))
        options = {name: value for name, value in part_of(facts, "options").items() if value is not None}
        parts.append(_values("Options of the last run", options))
    return element("div", *parts, class_="cards") if parts else element("p", "Nothing is recorded here.")


def _values(title: str, values: Mapping[str, Any]) -> Markup:
    entries = [
        part
        for name, value in values.items()
        for part in (element("dt", name.replace("_", " ")), element("dd", value))
    ]
    return element("details", element("summary", title), element("dl", *entries), class_="card")


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "s", 1.0
    return ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)
