"""HTML as text: every value that comes from outside is escaped here, and nowhere else.

Sections hand over plain values; strings that are markup already are :class:`Markup`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Markup", "element", "items", "join", "table"]


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
    numeric = [header.startswith("#") for header in headers]
    head = [
        element("th", header.removeprefix("#"), scope="col", class_="number" if right else None)
        for header, right in zip(headers, numeric, strict=True)
    ]
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_="number" if right else None)
                for cell, right in zip(row, numeric, strict=True)
            ),
        )
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
