"""Charts of the page: bars and curves that keep legible type at any width.

Numbers come from the sections. Shapes are SVG that is stretched to the width there is; all type around
them is HTML, so that it is never scaled with them.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Markup", "Series", "bars", "element", "histogram", "items", "join", "line", "table", "ticks"]

_HEIGHT = 100.0
_WIDTH = 1000.0
_NAMED_BINS = 8
"""Up to so many bins, each is one length and bears its name."""
_LONG = 20
"""Characters of a cell; longer ones need a wider column than others to be legible."""
_TAG = re.compile("<[^>]*>")


@dataclass(frozen=True)
class Series:
    """One colour of a chart.

    Parameters
    ----------
    name : str
        For the legend.
    colour : str
        Name of a colour of the page: ``viral`` or ``host``.
    values : sequence of float
        One per bin.
    """

    name: str
    colour: str
    values: Sequence[float]


def ticks(highest: float) -> list[float]:
    """Round values from 0 to the highest, at most five."""
    if highest <= 0:
        return [0.0]
    raw = highest / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * place for place in range(int(highest / step + 1e-9) + 1)]


def bars(title: str, rows: Sequence[tuple[str, float, str, str]]) -> Markup:
    """Horizontal bars.

    Parameters
    ----------
    title : str
        What is shown, for those who hear it.
    rows : sequence of (str, float, str, str)
        Name, length, the value as text with its unit, and the name of the colour.
    """
    highest = max((value for _, value, _, _ in rows), default=0.0) or 1.0
    lines = [
        element(
            "li",
            element("span", name, class_="name"),
            element(
                "span",
                element("span", style=f"width:{value / highest:.2%}", class_=f"fill {colour}"),
                class_="track",
                aria_hidden="true",
            ),
            element("span", text, class_="value"),
        )
        for name, value, text, colour in rows
    ]
    return element("ul", *lines, class_="bars", aria_label=title)


def histogram(title: str, edges: Sequence[float], series: Sequence[Series], unit: str) -> Markup:
    """Grouped bars: for each bin the share of the records of each class.

    Parameters
    ----------
    title : str
        What is shown.
    edges : sequence of float
        Edges of the bins, one more than there are bins.
    series : sequence of Series
        Shares from 0 to 1.
    unit : str
        Unit of the edges.
    """
    highest = max((value for part in series for value in part.values), default=0.0) or 1.0
    bins = len(edges) - 1
    width = _WIDTH / bins / len(series)
    shapes = [
        _bar(place * _WIDTH / bins + number * width, width * 0.92, value / highest, part, tip)
        for number, part in enumerate(series)
        for place, value in enumerate(part.values)
        if value > 0
        for tip in [
            f"{part.name}: {value:.2%} from {edges[place]:,.0f} to below {edges[place + 1]:,.0f} {unit}"
        ]
    ]
    if bins <= _NAMED_BINS:
        x_marks = [((place + 0.5) / bins, f"{edge:,.0f}") for place, edge in enumerate(edges[:-1])]
    else:
        x_marks = [(place / 4, f"{edges[0] + (edges[-1] - edges[0]) * place / 4:,.0f}") for place in range(5)]
    y_marks = [(value / highest, f"{value:.0%}") for value in ticks(highest)]
    return _frame(title, shapes, x_marks, y_marks, (f"length ({unit})", "share of class"), series)


def line(
    title: str, points: Sequence[tuple[float, float]], names: tuple[str, str], colour: str = "host"
) -> Markup:
    """Draw a curve above zero.

    Parameters
    ----------
    title : str
        What is shown.
    points : sequence of (float, float)
        In the order of x; both not negative.
    names : tuple of two str
        What x and y are, with their units.
    """
    right = max((x for x, _ in points), default=0.0) or 1.0
    highest = 1.08 * max((y for _, y in points), default=0.0) or 1.0
    path = " ".join(
        f"{'L' if place else 'M'}{x / right * _WIDTH:.1f},{(1 - y / highest) * _HEIGHT:.2f}"
        for place, (x, y) in enumerate(points)
    )
    first, last = points[0][0] / right * _WIDTH, points[-1][0] / right * _WIDTH
    area = f"{path} L{last:.1f},{_HEIGHT} L{first:.1f},{_HEIGHT} Z"
    shapes = [
        element("path", d=area, class_=f"area {colour}"),
        element("path", d=path, class_=f"line {colour}"),
    ]
    x_marks = [(value / right, f"{value:,g}") for value in ticks(right)]
    y_marks = [(value / highest, f"{value:,g}") for value in ticks(highest)]
    return _frame(title, shapes, x_marks, y_marks, names, ())


def _bar(left: float, width: float, height: float, part: Series, tip: str) -> Markup:
    return element(
        "rect",
        element("title", tip),
        x=f"{left:.2f}",
        y=f"{(1 - height) * _HEIGHT:.3f}",
        width=f"{width:.2f}",
        height=f"{height * _HEIGHT:.3f}",
        class_=f"shape {part.colour}",
    )


def _frame(
    title: str,
    shapes: Sequence[Markup],
    x_marks: Sequence[tuple[float, str]],
    y_marks: Sequence[tuple[float, str]],
    names: tuple[str, str],
    series: Sequence[Series],
) -> Markup:
    grid = [
        element("line", x1=0, x2=_WIDTH, y1=y, y2=y, class_="grid")
        for share, _ in y_marks
        for y in [f"{(1 - share) * _HEIGHT:.3f}"]
    ]
    picture = element(
        "svg",
        element("title", title),
        *grid,
        *shapes,
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        preserveAspectRatio="none",
        role="img",
    )
    legend = [
        element("span", element("span", class_=f"key {part.colour}"), f" {part.name}") for part in series
    ]
    return element(
        "figure",
        element("figcaption", element("span", title, class_="title"), *legend),
        element("div", names[1], class_="y-name"),
        element("div", *(_mark(text, f"bottom:{share:.2%}") for share, text in y_marks), class_="y-marks"),
        element("div", picture, class_="plot"),
        element("div", *(_mark(text, f"left:{share:.2%}") for share, text in x_marks), class_="x-marks"),
        element("div", names[0], class_="x-name"),
        class_="chart",
    )


def _mark(text: str, style: str) -> Markup:
    return element("span", text, style=style)


class Markup(str):
    """Text that is HTML already; everything else is escaped when it is put into an element."""

    __slots__ = ()


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Write an element.

    Parameters
    ----------
    name : str
        Its name.
    content : object
        Markup, or values that are shown as text.
    attributes : object
        Values; a trailing underscore is left out (``class_``), other underscores are hyphens, None and False
        leave the attribute out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{shown}>{join(content)}</{name}>")


def join(content: Iterable[object]) -> Markup:
    """Put markup and texts one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in content))


def items(entries: Sequence[object], **attributes: object) -> Markup:
    """Write a list; nothing for no entries."""
    return (
        element("ul", *(element("li", entry) for entry in entries), **attributes) if entries else Markup("")
    )


def table(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Write a table that scrolls by itself on narrow screens; columns of numbers are set to the right.

    Parameters
    ----------
    title : str
        Its caption.
    headers : sequence of str
        Names of the columns, with units; those of numbers start with ``#``, which is not shown.
    rows : sequence
        Cells of each row.
    """
    kinds = [_kind(header, [row[place] for row in rows]) for place, header in enumerate(headers)]
    head = [
        element("th", header.removeprefix("#"), scope="col", class_=kind)
        for header, kind in zip(headers, kinds, strict=True)
    ]
    body = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    content = element(
        "table",
        element("caption", title),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    # Reachable by keyboard, so that it can be scrolled without a mouse.
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=title)


def _kind(header: str, column: Sequence[object]) -> str | None:
    """Class of the cells of a column: a number, or names that are to stay legible on a narrow screen."""
    if header.startswith("#"):
        return "number"
    longest = max((len(_TAG.sub("", str(cell))) for cell in column), default=0)
    return "long" if longest > _LONG else None
