"""Pictures for papers: the map, lengths, throughput and class balance as PNG files of 300 dots an inch.

The same numbers as on the page, drawn by matplotlib without a display; files appear whole, like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nucpro.folder.paths import CLASS_NAMES, VIRAL
from nucpro.formats.figures import draw
from nucpro.report.geometry import Geometry
from nucpro.report.sample import Sample
from nucpro.report.subject import Subject
from nucpro.state.history import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "PICTURES_OF_ROWS", "draw_map", "write_pictures"]

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which people with any colour vision tell apart.
_COLOURS = {"viral": "#d55e00", "host": "#0072b2"}
_MARKERS = {"viral": "o", "host": "s"}
_DOTS_PER_INCH = 300
PICTURES_OF_ROWS = ("map.png", "lengths.png")
"""Those that only a report with files has."""
PICTURES = (*PICTURES_OF_ROWS, "throughput.png", "classes.png")


def write_pictures(
    folder: Path, subject: Subject, sample: Sample, geometry: Geometry | None
) -> tuple[Path, ...]:
    """Write the pictures there are numbers for, and remove older ones there are none for now.

    Parameters
    ----------
    folder : Path
        Where they go; it exists.

    Returns
    -------
    tuple of Path
        What was written.
    """
    run = subject.last_extraction
    pictures: dict[str, Callable[[Any], None] | None] = {
        "map.png": None if geometry is None else lambda axes: draw_map(axes, sample, geometry),
        "lengths.png": None if not sample.pairs else lambda axes: _lengths(axes, sample.residue_lengths),
        "throughput.png": None if run is None else lambda axes: _throughput(axes, run),
        "classes.png": None if not subject.files else lambda axes: _classes(axes, subject),
    }
    written = []
    for name, fill in pictures.items():
        if fill is None:
            (folder / name).unlink(missing_ok=True)
        elif draw(folder / name, (5.5, 4.2), _DOTS_PER_INCH, partial(_fill, fill)):
            written.append(folder / name)
    return tuple(written)


def _fill(fill: Callable[[Axes], None], figure: Figure) -> None:
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    fill(axes)


def draw_map(axes: Axes, sample: Sample, geometry: Geometry) -> None:
    """Draw the map of a sample, with a colour and a marker per class."""
    layout = geometry.layouts[0]
    size = float(np.clip(20_000 / len(sample), 1.5, 25))
    for label, name in enumerate(CLASS_NAMES):
        rows = sample.labels == label
        points = layout.points[rows]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            alpha=0.6,
            linewidths=0,
            color=_COLOURS[name],
            marker=_MARKERS[name],
            label=f"{name} ({rows.sum():,})",
        )
    axes.set(xlabel=layout.axes[0], ylabel=layout.axes[1], xticks=[], yticks=[])
    axes.legend(frameon=False, markerscale=max(1.0, 4 / size**0.5))


def _lengths(axes: Axes, counts: Mapping[int, Mapping[int, int]]) -> None:
    every = [length for of_class in counts.values() for length in of_class]
    edges = np.linspace(min(every), max(every) + 1, min(40, max(every) - min(every) + 1) + 1)
    for label, name in enumerate(CLASS_NAMES):
        of_class = counts[label]
        if of_class:
            weights = np.array(list(of_class.values())) / sum(of_class.values())
            axes.hist(
                list(of_class), edges.tolist(), weights=weights, alpha=0.65, color=_COLOURS[name], label=name
            )
    axes.set(xlabel="protein length (residues)", ylabel="share of class")
    axes.legend(frameon=False)


def _throughput(axes: Axes, run: Run) -> None:
    ends = np.cumsum([file.elapsed for file in run.files])
    rates = [file.records / max(file.elapsed, 1e-9) for file in run.files]
    axes.plot(ends / 60, rates, color=_COLOURS["host"], marker="o" if len(rates) < 50 else None, markersize=3)
    axes.set(xlabel="time (min)", ylabel="sequences/s", ylim=(0, None))


def _classes(axes: Axes, subject: Subject) -> None:
    counts = subject.categories[::-1]
    colours = [_COLOURS["viral" if count.category == VIRAL else "host"] for count in counts]
    axes.barh([count.category for count in counts], [count.records for count in counts], color=colours)
    axes.set(xlabel="sequences")
    axes.ticklabel_format(axis="x", style="plain")
