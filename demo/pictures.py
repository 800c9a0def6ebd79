"""The README's pictures, on a light and a dark page: run after ``make demo``, whose results they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nucpro.execution.workers import Workers
from nucpro.folder.paths import DataFolder
from nucpro.formats.figures import CLASS_COLOURS, DARK_CLASS_COLOURS, draw
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.plot import draw_scores
from nucpro.prediction.tables import read_tables
from nucpro.report.geometry import describe
from nucpro.report.pictures import draw_map
from nucpro.report.sample import read_sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
DEMO, ASSETS = ROOT / "build" / "demo", ROOT / "docs" / "assets"
INK, PAPER = "#c9d1d9", "#0d1117"
THRESHOLD = 0.5
SIZE = (6.6, 3.6)


def main() -> None:
    """Draw the map of the demo's rows, and the scores along the held-out genome with the most."""
    folder = DataFolder(DEMO / "data")
    with Workers(1) as workers:
        sample = read_sample(map(folder.pair_of, folder_files(folder)), 20_000, workers)
    geometry = describe(sample.vectors, sample.labels)
    rows = read_tables(OutputFolder(DEMO / "held_out_prediction"))
    row = max(rows, key=lambda row: int(row.values["scored_chunks"]))
    write("map", SIZE, lambda figure, colours: draw_map(figure.subplots(), sample, geometry, colours))
    write("contig", SIZE, lambda figure, colours: draw_scores(figure, row, THRESHOLD, colours))


def folder_files(folder: DataFolder) -> list[Path]:
    """Nucleotide FASTA files of the merged files."""
    found = sorted(folder.root.glob("*nucleotide/output_*.fa"))
    return [path for path in found if (pair := folder.pair_of(path)) is not None and pair.merged.exists()]


def write(name: str, size: tuple[float, float], fill: Callable[[Figure, Mapping[str, str]], None]) -> None:
    """Write a picture for a light page, and one for a dark one."""
    draw(ASSETS / f"{name}-light.png", size, partial(fill, colours=CLASS_COLOURS), 160)
    draw(ASSETS / f"{name}-dark.png", size, partial(darkened, fill), 160)


def darkened(fill: Callable[[Figure, Mapping[str, str]], None], figure: Figure) -> None:
    """Draw with light ink on a dark page."""
    from matplotlib.text import Text  # noqa: PLC0415

    fill(figure, DARK_CLASS_COLOURS)
    figure.set_facecolor(PAPER)
    for axes in figure.axes:
        axes.set_facecolor(PAPER)
        axes.tick_params(colors=INK)
        axes.spines[:].set_edgecolor(INK)
    for text in figure.findobj(Text):
        text.set_color(INK)


if __name__ == "__main__":
    main()
