"""References of docstrings, such as ``:func:`stream```, become links where the page has their target."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):<code>~?([\w.]+)</code>")
_TARGET = re.compile(r'\bid="((?:nucpro|units)[\w.]*)"')


def on_page_content(html: str, **_: Any) -> str:
    """Rewrite the references of a page that mkdocstrings has rendered; MkDocs calls this for each page."""
    targets = _TARGET.findall(html)

    def link(reference: re.Match[str]) -> str:
        name = reference[1]
        meant = {target for target in targets if f".{target}".endswith(f".{name}")}
        if len(meant) != 1:
            return f"<code>{name}</code>"
        return f'<a href="#{meant.pop()}"><code>{name}</code></a>'

    return _ROLE.sub(link, html)
