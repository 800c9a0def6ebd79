"""How soon commands answer that have nothing to compute, and how soon the first file is there when there is.

    python benchmarks/starts.py --json benchmarks/results/starts.json [--runs 10]
    python benchmarks/starts.py --gpu --json benchmarks/results/starts_h100.json [--runs 3]

The first makes a folder of 201 small files with an untrained model, runs ``nucpro extract`` on it once, and then takes
the processor time (user and system, children included) and the wall time of commands that are started as a user
starts them, in turns; medians. What they import is in tests/commands/test_starts.py. The second needs a GPU: the time
from the command to the line of the first full file of 10,000 sequences, with an untrained model of the 650M shape,
by the local engine and by ``--engine ray`` in turns, after one start of each that is not counted (kernels are built,
libraries come into memory).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo"), str(ROOT / "benchmarks")]

from end_to_end import machine, make_data, make_model, run_job

NUCPRO = (sys.executable, "-m", "nucpro")
FILES = 201
SMALL = 4
FULL = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--gpu", action="store_true", help="the first file instead of commands")
    parser.add_argument(
        "--tiny", action="store_true", help="with --gpu: small files on the CPU, to try the script"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        if arguments.gpu:
            found = first_files(here, arguments.runs or 3, tiny=arguments.tiny)
        else:
            found = commands(here, arguments.runs or 10)
    result = {"machine": machine(), "command": " ".join(sys.argv), **found}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def commands(here: Path, runs: int) -> dict[str, object]:
    """Medians of the seconds of each command."""
    model, data = make_model(here / "model", tiny=True), make_data(here / "data", FILES, SMALL)
    size = ("--sequences-per-file", str(SMALL))
    extract = ("extract", "--data-dir", str(data), "--protein-model", str(model), "--device", "cpu", *size)
    first = spent(extract)
    asked = {
        "--version": ("--version",),
        "--help": ("--help",),
        "extract --help": ("extract", "--help"),
        "status": ("status", str(data), *size),
        "extract, nothing to do": extract,
        "extract --dry-run, nothing to do": (*extract, "--dry-run"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for number in range(runs):
        for name, command in asked.items():
            times[name].append(spent(command))
        print(f"round {number + 1} of {runs}", flush=True)
    return {
        "files": FILES,
        "runs": runs,
        "first_run": {"cpu_s": round(first[0], 2), "wall_s": round(first[1], 2)},
        "medians": {
            name: {
                what: round(statistics.median(one[n] for one in taken), 3)
                for n, what in enumerate(("cpu_s", "wall_s"))
            }
            for name, taken in times.items()
        },
    }


def spent(command: tuple[str, ...]) -> tuple[float, float]:
    """Processor and wall seconds of a command that must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*NUCPRO, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
    )
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started


def first_files(here: Path, runs: int, *, tiny: bool) -> dict[str, object]:
    """Seconds from the command to the first file and to other milestones, for both engines; medians."""
    size, device = (50, "cpu") if tiny else (FULL, "cuda")
    model = make_model(here / "untrained_650m", tiny)
    engines = {"local": [], "ray": ["--engine", "ray", "--workers", "1"]}
    options = [
        "--protein-model",
        str(model),
        "--device",
        device,
        "--sequences-per-file",
        str(size),
        "--no-report",
    ]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for number in range(runs + 1):
        for name, more in engines.items():
            found = run_job(make_data(here / f"{name}_{number}", 3, size), [*options, *more])
            if number:
                taken[name].append(found)
    medians = {
        name: {what: round(statistics.median(one[what] for one in every), 2) for what in every[0]}
        for name, every in taken.items()
    }
    behind = medians["ray"]["first_file_done"] - medians["local"]["first_file_done"]
    return {"runs": runs, "medians": medians, "ray_behind_local_s": round(behind, 2), "all": taken}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}


if __name__ == "__main__":
    main()
