"""Figures for papers: map, lengths, throughput and class balance, as PNG files of 300 dpi and as SVG files.

The same numbers as on the page, drawn by matplotlib without a display; files appear whole, like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import counted, human_time
from nucpro.folder.paths import CLASS_NAMES, VIRAL
from nucpro.formats.figures import CLASS_COLOURS, LINE_COLOURS, REFERENCE, draw
from nucpro.report.geometry import Geometry
from nucpro.report.sample import Sample
from nucpro.report.sections import throughput
from nucpro.report.subject import Subject
from nucpro.state.history import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "PICTURES_OF_ROWS", "draw_map", "figures_of", "write_pictures"]

_MARKERS = {"viral": "o", "host": "s"}
_SIZE = (5.5, 4.2)
_FORMATS = (".png", ".svg")
_MOST_BINS = 40
_COUNTED_BINS = 8
"""Up to so many bins, the number of sequences is written above each."""
_OF_ROWS = ("map", "lengths")
PICTURES_OF_ROWS = tuple(f"{name}{form}" for name in _OF_ROWS for form in _FORMATS)
"""Those that only a report with files has."""
PICTURES = tuple(f"{name}{form}" for name in (*_OF_ROWS, "throughput", "classes") for form in _FORMATS)


def write_pictures(
    folder: Path, subject: Subject, sample: Sample, geometry: Geometry | None
) -> tuple[Path, ...]:
    """Write the figures that have data, and remove older ones that have none now.

    Parameters
    ----------
    folder : Path
        Where they go; it exists.

    Returns
    -------
    tuple of Path
        What was written.
    """
    written = []
    for name, fill in figures_of(subject, sample, geometry).items():
        for path in (folder / f"{name}{form}" for form in _FORMATS):
            if fill is None:
                path.unlink(missing_ok=True)
            elif draw(path, _SIZE, fill):
                written.append(path)
    return tuple(written)


def figures_of(
    subject: Subject, sample: Sample, geometry: Geometry | None
) -> dict[str, Callable[[Figure], None] | None]:
    """Functions that draw each figure; None where there are no numbers for it."""
    run = subject.last_extraction
    return {
        "map": None if geometry is None else lambda figure: draw_map(_axes(figure), sample, geometry),
        "lengths": None if not sample.pairs else lambda figure: _lengths(figure, sample),
        "throughput": None if run is None else lambda figure: _throughput(_axes(figure), run),
        "classes": None if not subject.files else lambda figure: _classes(_axes(figure), subject),
    }


def _axes(figure: Figure) -> Axes:
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_map(
    axes: Axes, sample: Sample, geometry: Geometry, colours: Mapping[str, str] = CLASS_COLOURS
) -> None:
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
            color=colours[name],
            marker=_MARKERS[name],
            label=f"{name} ({rows.sum():,})",
            rasterized=True,  # in an SVG too: a shape per point would be megabytes
        )
    title = f"{layout.name} of {counted(len(sample), 'sequence', ',')}"
    if geometry.agreement is not None and geometry.chance is not None:
        title += f"\n{geometry.agreement:.0%} have mostly neighbours of their own class (chance: {geometry.chance:.0%})"
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel=layout.axes[0], ylabel=layout.axes[1], xticks=[], yticks=[])
    axes.legend(frameon=False, markerscale=max(1.0, 4 / size**0.5))


def _lengths(figure: Figure, sample: Sample) -> None:
    """Draw the lengths of both sequence types, one above the other."""
    panels = figure.subplots(2, 1)
    parts = (("Nucleotide", sample.base_lengths, "bases"), ("Protein", sample.residue_lengths, "residues"))
    for axes, (title, counts, unit) in zip(panels, parts, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        _distribution(axes, title, counts, unit)


def _distribution(axes: Axes, title: str, counts: Mapping[int, Mapping[int, int]], unit: str) -> None:
    """Draw a histogram with grouped bars, so that no class hides the other."""
    every = sorted({length for of_class in counts.values() for length in of_class})
    edges = _edges(every)
    bins = len(edges) - 1
    for place, (label, name) in enumerate(reversed(list(enumerate(CLASS_NAMES)))):
        of_class = counts[label]
        if not of_class:
            continue
        found, _ = np.histogram(list(of_class), edges, weights=list(of_class.values()))
        width = np.diff(edges) * 0.45
        left = edges[:-1] + np.diff(edges) * 0.05 + place * width
        total = int(found.sum())
        bars = axes.bar(
            left, found / total, width, align="edge", color=CLASS_COLOURS[name], label=f"{name} ({total:,})"
        )
        if bins <= _COUNTED_BINS:
            axes.bar_label(bars, [f"{int(n):,}" if n else "" for n in found], fontsize="xx-small")
    if bins <= _COUNTED_BINS:
        axes.set_xticks((edges[:-1] + edges[1:]) / 2, [f"{edge:,}" for edge in edges[:-1]], fontsize="small")
    axes.set_title(f"{title} sequences: {_range(every)} {unit}", fontsize="medium")
    axes.set(xlabel=f"length ({unit})", ylabel="share of class")
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize="small")


def _edges(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Edges of bins that each hold the same number of lengths, whole numbers all."""
    low, high = lengths[0], lengths[-1] + 1
    step = -(-(high - low) // _MOST_BINS)
    return np.arange(low, high + step, step)


def _range(lengths: Sequence[int]) -> str:
    low, high = lengths[0], lengths[-1]
    return f"all {low:,}" if low == high else f"{low:,} to {high:,}"


def _throughput(axes: Axes, run: Run) -> None:
    curve = throughput(run)
    times, rates = zip(*curve.points, strict=True) if curve.points else ((), ())
    marker = "o" if len(times) < 50 else None
    axes.plot(times, rates, color=LINE_COLOURS[1], marker=marker, markersize=3, label="while extracting")
    mean = f"mean: {curve.mean:,.0f} sequences/s"
    axes.axhline(curve.mean, **REFERENCE, label=mean)
    axes.set_title(
        f"{counted(curve.records, 'sequence', ',')} in {human_time(curve.seconds)}", fontsize="medium"
    )
    axes.set(xlabel=f"time ({curve.unit})", ylabel="sequences/s", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")


def _classes(axes: Axes, subject: Subject) -> None:
    counts = subject.categories
    for name in reversed(CLASS_NAMES):
        places = [place for place, c in enumerate(counts) if (c.category == VIRAL) == (name == VIRAL)]
        records = [counts[place].records for place in places]
        bars = axes.barh(places, records, color=CLASS_COLOURS[name], label=f"{name} ({sum(records):,})")
        texts = [f"{counts[k].records:,} in {counted(counts[k].files, 'file', ',')}" for k in places]
        axes.bar_label(bars, texts, padding=3, fontsize="small")
    viral, host = subject.records(1), subject.records(0)
    share = f": {viral / (viral + host):.1%} viral" if viral + host else ""
    axes.set_title(f"{counted(viral + host, 'sequence', ',')}{share}", fontsize="medium")
    axes.set_yticks(range(len(counts)), [c.category for c in counts])
    axes.invert_yaxis()
    axes.set(xlabel="sequences")
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
