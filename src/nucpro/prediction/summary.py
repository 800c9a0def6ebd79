"""Summary of a prediction: one self-contained HTML page, and a table for MultiQC.

Both are made of the tables of a prediction and of its record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nucpro.formats import write_text
from nucpro.formats.figures import CLASS_COLOURS
from nucpro.formats.sequences import SequenceType
from nucpro.prediction.options import OutputFolder, PredictionOptions
from nucpro.prediction.tables import SequenceRow, read_tables
from nucpro.prediction.work import read_record

__all__ = ["write_html", "write_multiqc"]

_BINS = 20
_MOST_ROWS = 1000
_VERDICTS = {**CLASS_COLOURS, "undetermined": "#777777"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
body { color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
.number { text-align: right } svg { width: 100%; height: auto }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } th, td { border-color: #444 } svg { fill: #ddd }
}
"""


def write_multiqc(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write ``nucpro_mqc.json``, which MultiQC finds by its name and shows as bars of the three verdicts.

    Raises
    ------
    DataError
        The record of the prediction cannot be read.
    StoreError
        The file cannot be written.
    """
    record = read_record(folder.record)
    content = {
        "id": "nucpro_predict",
        "section_name": "nucpro",
        "description": "sequences that nucpro predict calls viral, host or undetermined",
        "plot_type": "bargraph",
        "pconfig": {"id": "nucpro_predict_plot", "title": "nucpro: verdicts", "ylab": "sequences"},
        "categories": {name: {"name": name, "color": colour} for name, colour in _VERDICTS.items()},
        "data": {_sample(record): {verdict: record["counts"][verdict] for verdict in _VERDICTS}},
    }
    write_text(folder.multiqc, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return (folder.multiqc,)


def _sample(record: Mapping[str, Any]) -> str:
    return str(record["input"]["file"])


def write_html(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write ``summary.html``: counts, what made them, how scores are spread, and the viral sequences by score.

    Raises
    ------
    DataError
        The tables or their record cannot be read.
    StoreError
        The file cannot be written.
    """
    record = read_record(folder.record)
    spread = {verdict: [0] * _BINS for verdict in _VERDICTS}
    viral: list[SequenceRow] = []
    for row in read_tables(folder):
        if row.values["score"]:
            place = min(int(float(row.values["score"]) * _BINS), _BINS - 1)
            spread[row.values["prediction"]][place] += 1
        if row.is_viral:
            viral.append(SequenceRow(row.number, row.values, ()))
    viral.sort(key=lambda row: (-float(row.values["score"]), row.number))
    write_text(folder.html, "\n".join(_page(record, spread, viral)) + "\n")
    return (folder.html,)


def _page(
    record: Mapping[str, Any], spread: Mapping[str, list[int]], viral: Sequence[SequenceRow]
) -> Iterator[str]:
    name, counts = escape(_sample(record)), record["counts"]
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}: nucpro predict</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{name}</h1>"
    yield "<table><tr><th>what</th><th class=number>count</th></tr>"
    for what, count in counts.items():
        yield f"<tr><td>{escape(what.replace('_', ' '))}</td><td class=number>{count:,}</td></tr>"
    yield "</table><h2>Scores of sequences</h2>"
    yield _histogram(spread)
    shown = f", the first {_MOST_ROWS} of {len(viral)}" if len(viral) > _MOST_ROWS else ""
    yield f"<h2>Viral sequences, by score{shown}</h2>"
    columns = ("record", "bases", "chunks", "scored_chunks", "viral_chunks", "score")
    yield "<table><tr>" + "".join(f"<th>{column.replace('_', ' ')}</th>" for column in columns) + "</tr>"
    for row in viral[:_MOST_ROWS]:
        yield "<tr>" + "".join(f"<td>{escape(row.values[column])}</td>" for column in columns) + "</tr>"
    yield "</table><h2>Provenance</h2><table>"
    for what, value in _made_by(record):
        yield f"<tr><td>{escape(what)}</td><td>{escape(value)}</td></tr>"
    yield "</table></body></html>"


def _made_by(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "input", f"{record['input']['file']}, SHA-256 {record['input']['sha256']}"
    yield "classifier", f"SHA-256 of its card {record['classifier']['sha256']}"
    for sequence_type, encoder in record["encoders"].items():
        made_by = encoder["made_by"]
        yield (
            f"{SequenceType(sequence_type).word} encoder",
            f"{made_by.get('id')}, weights {made_by.get('weights_sha256')}",
        )
    verdicts = record["verdicts"]
    yield "bases of a chunk", str(record["length"])
    yield "viral from a score of", f"{verdicts['threshold']:g}"
    yield "undetermined below", f"{verdicts['min_length']} bases"


def _histogram(spread: Mapping[str, list[int]]) -> str:
    """Bars of the number of sequences by score, stacked by verdict."""
    most = max(map(sum, zip(*spread.values(), strict=True))) or 1
    width, height, base = 600 / _BINS, 160, 170
    bars = []
    for place in range(_BINS):
        top = float(base)
        for verdict, colour in _VERDICTS.items():
            size = height * spread[verdict][place] / most
            top -= size
            bars.append(
                f'<rect x="{30 + place * width:.1f}" y="{top:.1f}" width="{width - 1:.1f}" height="{size:.1f}" '
                f'fill="{colour}"><title>{verdict}: {spread[verdict][place]}</title></rect>'
            )
    ticks = [
        f'<text x="{30 + 600 * value:.0f}" y="186" font-size="11" text-anchor="middle">{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    legend = [
        f'<circle cx="{40 + 110 * number}" cy="202" r="5" fill="{colour}"/>'
        f'<text x="{50 + 110 * number}" y="206" font-size="11">{verdict}</text>'
        for number, (verdict, colour) in enumerate(_VERDICTS.items())
    ]
    return (
        f'<svg viewBox="0 0 640 212" role="img" aria-label="scores">{"".join([*bars, *ticks, *legend])}</svg>'
    )
