"""Pictures of scores along sequences.

Records come from the tables (:mod:`nucpro.prediction.tables`); one picture per record goes to the folder of plots.
Equal scores give equal bytes with the same matplotlib.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nucpro.errors import counted, shortened
from nucpro.formats import make_folder, remove_temporaries
from nucpro.formats.figures import CLASS_COLOURS, REFERENCE, can_draw, draw
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.tables import SequenceRow, read_tables
from nucpro.prediction.verdict import ChunkScore, Rules
from nucpro.prediction.work import read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_scores", "plotting_problems", "write_plots"]

_MOST_POINTS = 2_000
_LONGEST_TITLE = 60


def plotting_problems() -> list[str]:
    """Why pictures cannot be drawn, as pre-flight problems."""
    if can_draw():
        return []
    return [
        "--plot needs matplotlib, which is not installed: pip install 'nucpro[train]', or leave --plot out"
    ]


def write_plots(folder: OutputFolder, count: int, form: str = "png") -> list[Path]:
    """Draw the records with the most chunks; of equal ones the first.

    Parameters
    ----------
    folder : OutputFolder
        Of the prediction.
    count : int
        Pictures at most; records in which nothing was scored have none.
    form : {"png", "svg", "pdf"}
        Their format.

    Returns
    -------
    list of Path
        The pictures, in the order of the input.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        A picture cannot be written.
    """
    make_folder(folder.plots)
    remove_temporaries(folder.plots)
    threshold = Rules.of_record(read_record(folder.record)).threshold
    scored = ((len(row.chunks), -row.number) for row in read_tables(folder) if row.values["score"])
    chosen = {-number for _, number in heapq.nlargest(count, scored)}
    written = []
    for row in read_tables(folder):
        if row.number in chosen:
            path = folder.plot(row.values["record"], row.number, form)
            if draw(path, (7, 2.6), lambda figure, row=row: draw_scores(figure, row, threshold)):  # type: ignore[misc]
                written.append(path)
    return written


def draw_scores(
    figure: Figure, row: SequenceRow, threshold: float, colours: Mapping[str, str] = CLASS_COLOURS
) -> None:
    """Draw the scores of the chunks of a record, and the threshold."""
    axes = figure.add_subplot()
    windows = list(_windows(row.chunks))
    for is_viral, name in ((True, "viral"), (False, "host")):
        of_class = [window for window in windows if (window[2] >= threshold) is is_viral]
        if of_class:
            starts, ends, scores = zip(*of_class, strict=True)
            axes.hlines(
                scores,
                starts,
                ends,
                colors=colours[name],
                linewidth=3,
                label=f"{name} ({len(of_class)})",
            )
    axes.axhline(threshold, **REFERENCE, label=f"threshold {threshold:g}")
    axes.set_xlim(1, max(int(row.values["bases"]), 2))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("position (bases)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    merged = -(-len(row.chunks) // _MOST_POINTS)
    axes.set_ylabel("viral score" if merged == 1 else f"viral score (means of {merged} chunks)")
    axes.set_title(_title(row), loc="left", fontsize=9, parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _windows(chunks: tuple[ChunkScore, ...]) -> list[tuple[int, int, float]]:
    """Start, end and score of chunks; of many chunks, those of windows of equally many."""
    size = max(1, -(-len(chunks) // _MOST_POINTS))
    windows = []
    for first in range(0, len(chunks), size):
        window = chunks[first : first + size]
        scores = [chunk.score for chunk in window if chunk.score is not None]
        if scores:
            windows.append((window[0].start, window[-1].end, sum(scores) / len(scores)))
    return windows


def _title(row: SequenceRow) -> str:
    values = row.values
    shown = shortened(values["record"], _LONGEST_TITLE)
    return (
        f"{shown}: {values['prediction']}, score {float(values['score']):.3f} (mean of {values['scored_chunks']} "
        f"scored of {counted(int(values['chunks']), 'chunk')})"
    )
