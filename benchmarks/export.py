"""Time of an export, and of reading it back, against the format.

    python benchmarks/export.py --json benchmarks/results/export.json

Merged files of full size (10,000 rows of 2,048) with vectors of a normal distribution, which pack a little worse
than real ones. In one process, and by its CPU time, so that other programs of the machine do not count; a run has up
to four such processes. Files lie in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

from nucpro.execution.workers import Workers
from nucpro.export.exporting import export
from nucpro.export.formats import FORMATS
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import write_merged

ROWS, WIDTH = 10_000, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument(
        "--folder", type=Path, help="where the files go (default: the folder for temporary files)"
    )
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "machine": {
            "cpu_cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "pyarrow": version("pyarrow"),
            "numpy": version("numpy"),
        },
        "files": arguments.files,
        "rows": arguments.files * ROWS,
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        pairs = make_files(Path(folder) / "data", arguments.files)
        for name in FORMATS:
            result[name] = measured(name, pairs, Path(folder) / name)
            print(name, result[name], flush=True)
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def make_files(data: Path, count: int) -> list[FilePair]:
    generator = np.random.default_rng(1)
    data.mkdir()
    source = DataFolder(data).source_of(data / "viral.1.1.identified_nucleotide.fa")
    assert source is not None
    source.merged_folder.mkdir(parents=True)
    pairs = [source.pair(number) for number in range(1, count + 1)]
    for pair in pairs:
        ids = [f"NC_{row:06d}.1_chunk_{pair.number}F1" for row in range(ROWS)]
        vectors = generator.standard_normal((ROWS, WIDTH), np.float32)
        write_merged(pair.merged, ids, vectors, {"kind": "merged"}, 1)
    return pairs


def measured(name: str, pairs: list[FilePair], out: Path) -> dict[str, float]:
    rows = len(pairs) * ROWS
    with Workers(1) as one:
        seconds, size = timed(name, pairs, out, one)
        again, _ = timed(name, pairs, out, one)
    return {
        "rows_per_cpu_second": round(rows / seconds),
        "mb_of_vectors_per_cpu_second": round(rows * WIDTH * 4 / seconds / 1e6),
        "size_of_vectors": round(size / (rows * WIDTH * 4), 3),
        "cpu_seconds_when_nothing_changed": round(again, 2),
    }


def timed(name: str, pairs: list[FilePair], out: Path, workers: Workers) -> tuple[float, int]:
    started = time.process_time()
    done = export(pairs, out, name, workers)
    return time.process_time() - started, done.bytes


if __name__ == "__main__":
    main()
