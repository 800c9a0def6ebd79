"""Time reading and writing of .pt files against torch and Python's own unpickler, on one core.

    python benchmarks/store.py

Full-size files (10,000 rows) are made in a temporary folder, in the form of the original scripts and in ours.
Every reader's result is compared with the vectors that were written before it is timed; files come from the
page cache, so that the figures are those of the processor. Each time is the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nucpro import formats as store
from nucpro.formats.sequences import SequenceType

RESULTS = Path(__file__).parent / "results" / "store.json"


def ids_of(rows: int) -> list[str]:
    return [f"NC_{row:06d}.1_{row * 300}_{row * 300 + 300}_frame{row % 6}" for row in range(rows)]


def random_vectors(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(width).standard_normal((rows, width), dtype=np.float32)


def make_files(folder: Path, ids: list[str]) -> None:
    """Write each kind as the original scripts did and as this package does."""
    dna, protein, wide = (random_vectors(len(ids), width) for width in (768, 1280, 2560))
    merged = np.concatenate([dna, protein], axis=1)
    rows = [{"label": name, "mean_representation": row.tolist()} for name, row in zip(ids, dna, strict=True)]
    torch.save({"nucleotide": ids, "data": rows}, folder / "original_dna.pt")
    for name, matrix in {"protein": protein, "wide": wide}.items():
        torch.save(
            {"proteins": ids, "data": [torch.from_numpy(row.copy()) for row in matrix]},
            folder / f"original_{name}.pt",
        )
    torch.save({"ids": ids, "data": torch.from_numpy(merged), "labels": [1]}, folder / "original_merged.pt")
    store.write_vectors(folder / "ours_dna.pt", ids, dna, None, SequenceType.DNA)
    store.write_vectors(folder / "ours_protein.pt", ids, protein, None, SequenceType.PROTEIN)
    store.write_vectors(folder / "ours_wide.pt", ids, wide, None, SequenceType.PROTEIN)
    store.write_merged(folder / "ours_merged.pt", ids, merged, None, 1)


def read_with_store(path: Path) -> np.ndarray:
    if "dna" in path.name:
        return store.read_vectors(path, SequenceType.DNA).vectors
    return (
        store.read_merged(path).vectors
        if "merged" in path.name
        else store.read_vectors(path, SequenceType.PROTEIN).vectors
    )


def read_with_torch(path: Path, *, weights_only: bool) -> np.ndarray:
    """Read the same matrix the way a script does it; without `weights_only`, Python's C unpickler works."""
    data = torch.load(path, weights_only=weights_only)["data"]
    if "dna" in path.name:
        data = [torch.as_tensor(row["mean_representation"]) for row in data]
    return (torch.stack(data) if isinstance(data, list) else data).numpy()


def median_of(action: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 4)


def time_reading(folder: Path, repeats: int) -> list[dict[str, object]]:
    lines = []
    for path in sorted(folder.glob("*.pt")):
        expected = read_with_torch(path, weights_only=False)
        if not np.array_equal(read_with_store(path).view(np.uint32), expected.view(np.uint32)):
            raise SystemExit(f"{path.name}: the two readers differ")
        line = {
            "file": path.stem,
            "bytes": path.stat().st_size,
            "store, checksums and digest made": median_of(lambda path=path: read_with_store(path), repeats),
            "store, a look": median_of(lambda path=path: store.read_meta(path), repeats),
            "torch, weights_only=False": median_of(
                lambda path=path: read_with_torch(path, weights_only=False), repeats
            ),
            "torch, weights_only=True": median_of(
                lambda path=path: read_with_torch(path, weights_only=True), 1
            ),
        }
        lines.append(line)
        print(line, flush=True)
    return lines


def time_writing(folder: Path, ids: list[str], repeats: int) -> list[dict[str, object]]:
    path, lines = folder / "written.tmp", []
    for width in (768, 1280, 2048):
        vectors = random_vectors(len(ids), width)
        rows = list(torch.from_numpy(vectors))
        line = {
            "columns": width,
            "store, fsync and digest": median_of(
                lambda v=vectors: store.write_vectors(path, ids, v, None, SequenceType.PROTEIN), repeats
            ),
            "torch.save, no fsync": median_of(
                lambda r=rows: torch.save({"proteins": ids, "data": r}, path), repeats
            ),
        }
        lines.append(line)
        print(line, flush=True)
    return lines


def machine() -> dict[str, object]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="rows of every file (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="where the files are made, about 700 MB (default: temporary)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    ids = ids_of(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_files(folder, ids)
        reading = time_reading(folder, options.repeats)
        writing = time_writing(folder, ids, options.repeats)
    results = {
        "machine": machine(),
        "rows": options.rows,
        "seconds reading": reading,
        "seconds writing": writing,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
