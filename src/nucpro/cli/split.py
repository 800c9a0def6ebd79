"""``nucpro split``: the split folders of all sources."""

from __future__ import annotations

import shlex
from typing import Any

from nucpro.cli.arguments import add_data_dir, add_replace
from nucpro.cli.console import summary
from nucpro.cli.parser import OUTPUT
from nucpro.errors import counted
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import DataFolder
from nucpro.options import SEQUENCES_PER_FILE, require
from nucpro.state.lock import hold

__all__ = ["add_to"]


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of ``nucpro``."""
    parser = subparsers.add_parser(
        "split",
        help="split the FASTA files of a data folder",
        description="Make missing split folders, with the same boundaries for DNA and protein. Existing folders "
        "are kept; those of another size are refused.",
        example="nucpro split data\nnucpro split data --sequences-per-file 20",
    )
    add_data_dir(parser)
    parser.group(OUTPUT).add_argument(
        "--sequences-per-file",
        type=int,
        metavar="N",
        help="records per full file (default: as recorded in the folder, else the size of its split files, else "
        f"{SEQUENCES_PER_FILE})",
    )
    add_replace(parser, "split folders of another size, and the vectors made from them")
    parser.set_defaults(run=_run)


def _run(arguments: dict[str, Any]) -> None:
    from nucpro.execution.workers import Workers
    from nucpro.folder.inventory import numbers_in
    from nucpro.folder.splitting import split_folder
    from nucpro.state.checkpoint import Checkpoint

    data_dir, size = arguments["data_dir"], arguments["sequences_per_file"]
    require(size is None or size > 0, "--sequences-per-file", size, "1 or more")
    require_folder(data_dir)
    folder = DataFolder(data_dir)
    with hold(folder.lock), Checkpoint(folder) as records, Workers() as workers:
        for source, made in split_folder(folder, size, records, workers, replace=arguments["replace"]):
            files = counted(len(numbers_in(source.nucleotide_folder) or ()), "file")
            summary([f"{source.name}: {'split' if made else 'already split'} into {files}"])
        again = shlex.join(["nucpro", "embed-dna", str(data_dir)])
        summary([f"Only files of {records.sequences_per_file} records are used later. Next: {again}"])
