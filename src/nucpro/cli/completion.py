"""``nucpro completion``: commands, options and file names completed by the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucpro.cli.arguments import sequences
from nucpro.cli.console import say
from nucpro.cli.parser import INPUT

__all__ = ["add_to"]

_SHELLS = ("bash", "zsh", "tcsh")


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "completion",
        help="print a shell script that completes commands, options and file names",
        description="Print a shell script that completes the commands, options and file names of nucpro.",
        example="""\
eval "$(nucpro completion bash)"            # in ~/.bashrc
nucpro completion zsh > ~/.zfunc/_nucpro    # a folder of $fpath""",
    )
    parser.group(INPUT).add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or tcsh")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    import shtab

    from nucpro.cli.main import commands_of, tree

    root = tree()
    for parser in commands_of(root).values():
        for action in parser.actions:
            if action.type in (Path, sequences):
                vars(action)["complete"] = shtab.FILE  # where shtab looks for it
    say(shtab.complete(root, arguments["shell"]))
