"""References of docstrings, such as ``:func:`nucpro.merge.merge```, become links where the page has their target."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):<code>~?([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Rewrite the references of a page that mkdocstrings has rendered; MkDocs calls this for each page."""

    def link(reference: re.Match[str]) -> str:
        target = reference[1]
        if f'id="{target}"' not in html:
            return f"<code>{target}</code>"
        return f'<a href="#{target}"><code>{target}</code></a>'

    return _ROLE.sub(link, html)
