"""The one place that draws figures: curves of a training, scores along sequences, pictures of a report.

A figure is drawn on matplotlib's Agg canvas with matplotlib's own defaults, whatever ``MPLBACKEND``,
``matplotlibrc`` or a notebook ask for. A figure that cannot be drawn is a warning, never an error: the data
it shows matter more.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.formats import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CLASS_COLOURS",
    "DARK_CLASS_COLOURS",
    "DOTS_PER_INCH",
    "LINE_COLOURS",
    "REFERENCE",
    "can_draw",
    "draw",
]

logger = logging.getLogger(__name__)

# After Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision can distinguish; darker
# on white and lighter on black, for contrast.
CLASS_COLOURS = {"viral": "#c74a00", "host": "#0072b2"}
"""Colour of each class, in figures and on the pages of ``report`` and ``predict``."""
DARK_CLASS_COLOURS = {"viral": "#ff9346", "host": "#56b4e9"}
"""The same on a dark background."""
LINE_COLOURS = ("#1c2126", "#009e73")
"""Colours of lines that belong to no class."""
REFERENCE: dict[str, Any] = {"color": "#59626d", "linestyle": ":", "linewidth": 1}
"""Style of reference lines: chance, prevalence, thresholds, means."""
DOTS_PER_INCH = 300
"""Resolution for print."""

_BACKEND = "MPLBACKEND"
_SILENT: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""Times, and names and versions of programs, would make pictures of equal content differ."""


def can_draw() -> bool:
    """Whether matplotlib is installed; the extras ``train`` and ``report`` include it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(
    path: Path,
    size: tuple[float, float],
    fill: Callable[[Figure], None],
    dots_per_inch: int = DOTS_PER_INCH,
) -> bool:
    """Draw a figure and write it; equal figures give equal bytes with the same matplotlib.

    Parameters
    ----------
    path : Path
        Where the picture goes; its suffix (``.png``, ``.svg`` or ``.pdf``) is its format.
    size : tuple of float
        Width and height in inches.
    fill : callable
        Draws into the empty figure.
    dots_per_inch : int
        Resolution.

    Returns
    -------
    bool
        False if it could not be drawn: this is logged, and an older picture of that name is removed.

    Raises
    ------
    StoreError
        The picture cannot be written.
    """
    try:
        content = _drawn(path.suffix[1:], size, fill, dots_per_inch)
    # matplotlib depends on fonts, caches and files of settings, and raises what any of them raises.
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        logger.warning("%s: cannot be drawn (%s: %s); all else is written", path, type(error).__name__, error)
        path.unlink(missing_ok=True)
        return False
    write_bytes(path, content)
    return True


def _drawn(form: str, size: tuple[float, float], fill: Callable[[Figure], None], dots_per_inch: int) -> bytes:
    with _no_backend_of_others():
        import matplotlib as mpl  # noqa: PLC0415 - an extra
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415 - unlike pyplot it needs no display
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "nucpro"  # ids of an SVG's parts are random without it
        figure = Figure(figsize=size, dpi=dots_per_inch, layout="constrained")
        FigureCanvasAgg(figure)
        fill(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format=form, metadata=_SILENT[form])
    return picture.getvalue()


@contextmanager
def _no_backend_of_others() -> Iterator[None]:
    """Import matplotlib without the user's choice of a backend, which it reads when imported."""
    named = None if "matplotlib" in sys.modules else os.environ.pop(_BACKEND, None)
    try:
        yield
    finally:
        if named is not None:
            os.environ[_BACKEND] = named
