"""``nucpro status``: the state of a data folder."""

from __future__ import annotations

from typing import Any

from nucpro.cli.arguments import add_data_dir, add_selection
from nucpro.cli.console import say
from nucpro.cli.parser import OUTPUT
from nucpro.errors import UsageError
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import DataFolder
from nucpro.options import Options, require

__all__ = ["add_to"]

_INTERVAL = 2.0


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "status",
        help="show what is done, stale and missing in a data folder",
        description="Show what is done, stale and missing in a data folder. Changes nothing; can be used during a run.",
        example="nucpro status data\nnucpro status data --watch 10",
    )
    add_data_dir(parser)
    add_selection(parser)
    parser.group(OUTPUT).add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=_INTERVAL,
        metavar="SECONDS",
        help="follow the current run until it ends, and refresh every SECONDS seconds (default: %(const)g); "
        "Ctrl-C does not affect the run",
    )
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.inspection.monitor import status

    interval = arguments.pop("watch")
    options = Options.of(arguments)
    if interval is not None:
        _watch(options, interval)
        return
    for line in status(options):
        say(line)


def _watch(options: Options, interval: float) -> None:
    from nucpro.cli.watch import watch

    if not interval > 0:
        raise UsageError(f"--watch is {interval:g}; allowed: more than 0 seconds")
    # A run that is followed has its own selection.
    for name in ("sequences_per_file", "host_selection", "strict_sampling"):
        value = getattr(options, name)
        option = f"--{name.replace('_', '-')}"
        require(value == getattr(Options(), name), option, value, "only without --watch")
    require_folder(options.data_dir)
    watch(DataFolder(options.data_dir), interval)
