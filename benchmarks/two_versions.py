"""Two checkouts side by side: the whole job on one device, in alternating pairs.

    python benchmarks/two_versions.py OLD NEW --json OUT.json [--files 12] [--rounds 3] [--tiny]

Makes one data folder and one untrained checkpoint of the 650M shape, then runs ``nucpro extract`` of the two checkouts
in turn, each in a process of its own, on the same files; what a run made is removed before the next. One run of each
comes first and is not counted: it builds kernels. Says for both the seconds from the command to "Validation passed",
to the first file and between files, and the ratio new / old of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo"), str(ROOT / "benchmarks")]

from end_to_end import machine, make_data, make_model, milestones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a few small files on the CPU: to try the script")
    arguments = parser.parse_args()
    size, device = (50, "cpu") if arguments.tiny else (10_000, "cuda")
    checkouts = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "untrained", arguments.tiny)
        data = make_data(Path(folder) / "data", arguments.files, size)
        options = [
            "--protein-model",
            str(model),
            "--device",
            device,
            "--sequences-per-file",
            str(size),
            "--no-report",
        ]
        runs: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
        vectors: dict[str, list[bytes]] = {}
        for number in range(arguments.rounds + 1):
            for name, checkout in checkouts.items():
                found = run(checkout, data, options)
                print(name, number, found, flush=True)
                if number:
                    runs[name].append(found)
                vectors[name] = [path.read_bytes() for path in sorted(data.rglob("*_ESM.pt"))[:2]]
                remove_outputs(data)
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    result: dict[str, Any] = {
        "machine": machine(),
        "files": arguments.files,
        "sequences_per_file": size,
        "runs": runs,
        "new_over_old": {key: medians["new"][key] / medians["old"][key] for key in medians["old"]},
        "equal_vectors": vectors["old"] == vectors["new"],
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def run(checkout: Path, data: Path, options: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "nucpro", "extract", "--data-dir", str(data), *options]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{checkout / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }
    started, lines = time.perf_counter(), []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.perf_counter() - started, line.rstrip()))  # noqa: PERF401 - the clock is read as lines come
    if process.wait() or not lines[-1][1].startswith("Validation passed"):
        raise SystemExit(f"{checkout}: the run failed\n" + "\n".join(text for _, text in lines[-5:]))
    return {"seconds": time.perf_counter() - started, **milestones(lines)}


def remove_outputs(data: Path) -> None:
    for path in data.rglob("*_ESM.pt"):
        path.unlink()
    shutil.rmtree(data / "data_merge")
    for path in data.glob(".extraction*"):
        path.unlink()


if __name__ == "__main__":
    main()
