"""Text from outside, as it may be shown: names of records and files must not steer a terminal, or fill it.

Ids and file names come from :mod:`nucpro.fasta`, :mod:`nucpro.layout`, :mod:`nucpro.store` and
:mod:`nucpro.dataset`, which refuse those that are not :func:`is_plain`. Messages go through
:func:`printable` at the two places where they leave: :class:`nucpro.errors.NucproError` and
:mod:`nucpro.cli.console`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["first_few", "is_plain", "printable"]

# Controls (escape sequences begin with one), line and paragraph separators, marks that turn the direction of
# writing, and halves of characters, which stand for bytes of file names that are not UTF-8.
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
)


def is_plain(name: str) -> bool:
    """Whether a name can be shown in one line as it is: no controls, line ends or marks of direction."""
    return _HIDDEN.search(name) is None


def printable(text: str) -> str:
    r"""Text with everything that is not plain written as an escape (``\x1b``); line feeds stay.

    Text that went through already stays as it is.
    """
    return "\n".join(_HIDDEN.sub(_escaped, line) for line in text.split("\n"))


def first_few(names: Sequence[str], most: int) -> str:
    """Names in one line: the first, and how many more there are.

    Examples
    --------
    >>> first_few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
