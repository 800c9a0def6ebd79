#!/usr/bin/env python3
"""The whole feature step of VirNucPro on one data folder: split, choose, DNA vectors, protein vectors, merge.

    python features_extract.py [--data-dir ./data/]

It is ``scripts/extract_training_data.py --with-dna``: the same options, the same rules, and like it, it can
be killed at any moment and run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from nucpro.__main__ import answer_signals

if __name__ == "__main__":
    answer_signals()  # what follows takes a while
import extract_training_data

from nucpro.cli.main import leave


def main(argv: Sequence[str] | None = None) -> int:
    """Run the feature step; see ``--help`` for the options, and the script for the exit codes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return extract_training_data.main(["--with-dna", *arguments])


if __name__ == "__main__":
    leave(main())
