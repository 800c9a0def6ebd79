#!/usr/bin/env python3
"""Training on ``data/data_merge``, by the name that VirNucPro's script has.

    python train.py [--data-dir ./data/]

It is ``nucpro train``: the same options, the same rules, and like it, it can be killed at any moment and run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a clone need not be installed

from nucpro.__main__ import answer_signals, open_streams

if __name__ == "__main__":
    answer_signals()  # what follows takes a while
from nucpro.cli import main as nucpro_main
from nucpro.cli.main import leave


def main(argv: Sequence[str] | None = None) -> int:
    """Train; see ``--help`` for the options, and ``nucpro train`` for the exit codes."""
    open_streams()
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--data-dir", default="./data/")
    known, rest = parser.parse_known_args(argv)
    return nucpro_main(["train", known.data_dir, *rest])


if __name__ == "__main__":
    leave(main())
