#!/usr/bin/env python3
"""Training on ``data/data_merge``: what is there so far is the reading of the merged files.

    python train.py [--data-dir ./data/]

Checks every merged file of a data folder as training needs it (one width, one label a file, both classes,
vectors of one pair of models) and says how many rows of each class there are. The classifier itself is
not part of nucpro yet; this program says so and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a clone need not be installed

from nucpro.cli.console import console, exit_code_of
from nucpro.errors import NucproError, ValidationError
from nucpro.layout import CLASS_NAMES, MERGED_WIDTH, DataFolder
from nucpro.store import read_merged


def main(argv: Sequence[str] | None = None) -> int:
    """Check the merged files of a data folder.

    Returns
    -------
    int
        1, as long as there is nothing to train with; 1 also where files are wrong.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("./data/"), help="the data folder")
    data_dir: Path = parser.parse_args(argv).data_dir
    with console():
        try:
            rows = count_rows(data_dir)
        except NucproError as error:
            return exit_code_of(error)
    counts = ", ".join(f"{rows[label]} {CLASS_NAMES[label]} rows" for label in (1, 0))
    print(f"{data_dir}: ready for training: {counts}, {MERGED_WIDTH} columns expected of the default models")
    print(
        "The classifier is not part of nucpro yet: use the training script of VirNucPro, with its width changed."
    )
    return 1


def count_rows(data_dir: Path) -> dict[int, int]:
    """Rows of each class in all merged files.

    Raises
    ------
    ValidationError
        No merged files, files of different widths, or one class only.
    """
    rows = {0: 0, 1: 0}
    widths: dict[int, Path] = {}
    for path in sorted(DataFolder(data_dir).merge_root.rglob("*_merged.pt")):
        merged = read_merged(path)
        rows[merged.label] += len(merged.ids)
        widths.setdefault(merged.vectors.shape[1], path)
    if not any(rows.values()):
        raise ValidationError(f"{data_dir}: no merged files; make them with scripts/extract_training_data.py")
    if len(widths) > 1:
        found = ", ".join(f"{width} ({path})" for width, path in sorted(widths.items()))
        raise ValidationError(
            f"{data_dir}: merged files of different widths: {found}; make all of them again"
        )
    if not all(rows.values()):
        raise ValidationError(f"{data_dir}: one class only: {rows[1]} viral and {rows[0]} host rows")
    return rows


if __name__ == "__main__":
    sys.exit(main())
