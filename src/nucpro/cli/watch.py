"""The live view of a run: a screen in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nucpro.cli.console import say
from nucpro.errors import human_time, printable
from nucpro.folder.paths import DataFolder
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.monitor import WARNING, Monitor, Rates, View

__all__ = ["watch"]

_UNITS: dict[str, str] = {kind: kind.unit for kind in SequenceType}
_BAR_WIDTH = 60
_NARROWEST = 20
_SHOWN_STAGES = 12


def watch(folder: DataFolder, interval: float) -> None:
    """Show a run until the data folder is no longer locked, or until Ctrl-C.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    interval : float
        Seconds between refreshes.
    """
    monitor = Monitor(folder)
    try:
        console = Console()
        with _screen(console) if _is_screen(console) else _lines() as show:
            while not _shown(monitor, show).is_over:
                time.sleep(interval)
    except KeyboardInterrupt:
        # Ends the view only; the run is not affected.
        return


def _shown(monitor: Monitor, show: Callable[[View], None]) -> View:
    view = monitor.look(time.time())
    show(view)
    return view


def _is_screen(console: Console) -> bool:
    """Whether a live view is possible: a terminal that is wide enough and can move its cursor."""
    return sys.stdout.isatty() and not console.is_dumb_terminal and console.width >= _NARROWEST


@contextmanager
def _screen(console: Console) -> Iterator[Callable[[View], None]]:
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield lambda view: live.update(_picture(view), refresh=True)


@contextmanager
def _lines() -> Iterator[Callable[[View], None]]:
    """Show all facts at the start and the end, and one line for each change in between."""
    last: list[View] = []

    def show(view: View) -> None:
        if view.is_over or not last:
            for label, text in facts(view):
                say(f"{label + ':':12}{text}")
        elif (view.state, view.done, view.stages) != (last[0].state, last[0].done, last[0].stages):
            say(f"{datetime.now():%H:%M:%S} {_line(view)}")
        last[:] = [view]
        sys.stdout.flush()

    yield show


def _line(view: View) -> str:
    parts = [f"{view.done}/{view.total} files" if view.total else view.state]
    if view.rates:
        parts.append(f"{_rate(view.rates.sequences)} sequences/s")
    elif view.stages:
        parts.append(f"{view.stages[-1][0]}: done")
    if view.seconds_left is not None:
        parts.append(f"{human_time(view.seconds_left, 0)} left{_of_part(view)}")
    return ", ".join([*parts, view.last_file] if view.last_file else parts)


def _picture(view: View) -> Table:
    # File names are plain text: rich would parse square brackets as markup, and terminals obey control characters.
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if view.total:
        table.add_row("", ProgressBar(total=view.total, completed=view.done, width=_BAR_WIDTH))
    for label, text in facts(view):
        style = "bold red" if label == "Problem" else ""
        table.add_row(Text(label, style="dim"), Text(printable(text), style=style))
    return table


def facts(view: View) -> list[tuple[str, str]]:
    """Labels and texts of a view, in the order in which they are shown."""
    rows = [("Run", view.state)]
    if view.started is not None:
        when = f"{datetime.fromtimestamp(view.started):%Y-%m-%d %H:%M:%S}"
        rows.append(("Started", f"{when}, {human_time(view.elapsed, 0)} ago" if not view.is_over else when))
        rows.append(("Vectors", view.what))
    if view.is_over and view.elapsed:
        rows.append(("Took", human_time(view.elapsed)))
    if view.total:
        rows.append(("Files", _files(view)))
    if view.rates:
        rows.append(("Rate", _rates(view.rates, _UNITS.get(view.sequence_type, "bases"))))
    if view.seconds_left is not None:
        rows.append(("Left", f"{human_time(view.seconds_left, 0)}{_of_part(view)}"))
    if view.last_file:
        ago = "" if view.is_over else f", {human_time(view.quiet, 0)} ago"
        rows.append(("Last file", f"{view.last_file}{ago}"))
    if view.stages:
        shown = view.stages[-_SHOWN_STAGES:]
        rows.append(("Stages", ", ".join(f"{name} {human_time(seconds)}" for name, seconds in shown)))
    return rows + [_problem(text) for text in view.problems]


def _problem(text: str) -> tuple[str, str]:
    warning = text.removeprefix(WARNING)
    return ("Problem" if warning == text else "Warning", warning)


def _of_part(view: View) -> str:
    """Name the part that the remaining time refers to, if another part follows."""
    return f" for {view.sequence_type.upper()} files, then {view.follows} files" if view.follows else ""


def _rates(rates: Rates, unit: str) -> str:
    sequences, read, tokens = (_rate(number) for number in (rates.sequences, rates.letters, rates.tokens))
    return f"{sequences} sequences/s, {read} {unit}/s, {tokens} tokens/s"


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _files(view: View) -> str:
    share = view.done / view.total
    text = f"{view.done} of {view.total} done ({share:.0%}), {view.made} by this run"
    return f"{text}; {view.stale} were outdated when it started" if view.stale else text
