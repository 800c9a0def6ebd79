"""What the driver of a Ray run spends on a file, and the memory it holds, when files take no work at all.

    python benchmarks/ray_overhead.py --json benchmarks/results/ray_overhead.json [--files 100000] [--encoders 4]

Hands file names to encoders that do nothing, through the same pool as a run, on a cluster of this machine
alone, and reads clock, CPU time and memory of this process after every tenth of the files. No file is
touched and no model is loaded, so all of the time is that of handing out and taking back. Then the same
files on more encoders, to see whether a file costs more where there are more of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import ray

from nucpro.execution.ray.pool import EncoderPool
from nucpro.execution.ray.session import Session
from nucpro.options import Options
from nucpro.state.history import Totals

TENTHS = 10


class Nothing:
    """An encoder that makes no file."""

    totals = Totals()

    def extract(self, fasta: Path, output: Path) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--encoders", type=int, nargs="*", default=[4, 16])
    arguments = parser.parse_args()
    result = {
        "machine": {
            "cpu_cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "ray": ray.__version__,
        },
        "runs": [simulate(arguments.files, count) for count in arguments.encoders],
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def simulate(files: int, encoders: int) -> dict[str, object]:
    options = Options(device="cpu", engine="ray", workers=encoders, cpus_per_worker=0.1)
    session = Session(options)
    session.start()
    try:
        pool = EncoderPool[int, None](session, Nothing, Nothing.extract)
        looks = [(time.perf_counter(), time.process_time(), resident())]
        done = 0
        for done, _ in enumerate(pool.run(range(files), files, paths), 1):
            if done == 1:  # encoders are there
                looks = [(time.perf_counter(), time.process_time(), resident())]
            elif done % (files // TENTHS) == 0:
                looks.append((time.perf_counter(), time.process_time(), resident()))
                print(f"{done} files", flush=True)
    finally:
        session.close()
    return {"files": done, "encoders": encoders, **figures(looks, files // TENTHS)}


def figures(looks: list[tuple[float, float, int]], files: int) -> dict[str, object]:
    steps = list(itertools.pairwise(looks))
    wall = [1e3 * (after[0] - before[0]) / files for before, after in steps]
    cpu = [1e3 * (after[1] - before[1]) / files for before, after in steps]
    return {
        "milliseconds_a_file": round(sum(wall) / len(wall), 3),
        "driver_cpu_milliseconds_a_file": round(sum(cpu) / len(cpu), 3),
        "milliseconds_a_file_by_tenth": [round(value, 3) for value in wall],
        "driver_cpu_milliseconds_a_file_by_tenth": [round(value, 3) for value in cpu],
        "resident_mib_by_tenth": [round(look[2] / 2**20, 1) for look in looks],
    }


def paths(number: int) -> tuple[Path, Path]:
    folder = Path(f"/data/viral.{number // 100}.1.identified_protein")
    return folder / f"output_{number}.fa", folder / f"output_{number}_ESM.pt"


def resident() -> int:
    """Memory of this process in RAM, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
