"""The whole job on one GPU and on several of one host: same bytes, and how many times the rate.

    python benchmarks/ray_gpus.py --json benchmarks/results/ray_gpus.json [--gpus 2 4] [--files 201] [--tiny]

Makes a data folder of full files and an untrained checkpoint of the 650M shape, as ``end_to_end.py`` does,
and times ``nucpro extract``, each run in a process of its own on a copy of the folder: the local engine on
one GPU with 40 files, then Ray with each number of GPUs that is asked for (all by default). The largest
number has all files, each other one 40 per GPU. A short run comes first, so that all of them find kernels
built. The files that all runs share must be equal, byte for byte. The rate is that from the first file to
the last, which is the rate of a long run; the time of the whole run, start and validation included, stands
beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
import torch
from end_to_end import machine, make_data, make_model, run_job

FILES_PER_GPU = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument(
        "--gpus", type=int, nargs="+", metavar="N", help="numbers of GPUs (default: all of them)"
    )
    parser.add_argument("--files", type=int, default=201, help="files of the run on most GPUs (default: 201)")
    parser.add_argument("--tiny", action="store_true", help="a few small files on the CPU: to try the script")
    arguments = parser.parse_args()
    present = torch.cuda.device_count()
    gpus = sorted(arguments.gpus or [present])
    if not arguments.tiny and not 1 <= gpus[0] <= gpus[-1] <= present:
        raise SystemExit(
            f"{gpus} GPUs are asked for, and this machine has {present}; try the script with --tiny"
        )
    result = compare(gpus, arguments.files, tiny=arguments.tiny)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def compare(gpus: Sequence[int], most_files: int, *, tiny: bool) -> dict[str, object]:
    size, device, per_gpu = (50, "cpu", 3) if tiny else (10_000, "cuda", FILES_PER_GPU)
    files = {
        "local": per_gpu,
        **{f"ray_{count}": per_gpu * count for count in gpus[:-1]},
        f"ray_{gpus[-1]}": most_files,
    }
    shared = min(files.values())
    runs, digests = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model = make_model(here / "untrained_650m", tiny)
        options = ["--protein-model", str(model), "--device", device, "--sequences-per-file", str(size)]
        run_job(make_data(here / "few", 2, size), options)
        for name, count in files.items():
            workers = [] if name == "local" else ["--engine", "ray", "--workers", name.removeprefix("ray_")]
            data = make_data(here / name, count, size)
            runs[name] = {"files": count, **run_job(data, [*options, *workers])}
            digests[name] = digest_of(data, shared)
            shutil.rmtree(data)
    if len(set(digests.values())) > 1:
        raise SystemExit(f"engines made different bytes: {digests}")
    return {
        "machine": {**machine(), "gpus": torch.cuda.device_count(), "ray": ray.__version__},
        "sequences_per_file": size,
        "runs": runs,
        "sequences_per_second_of_the_whole_run": {
            name: round(run["files"] * size / run["seconds"]) for name, run in runs.items()
        },
        "shared_outputs_sha256": digests["local"],
        "times_the_rate_of_one_gpu": {
            name: round(
                runs["local"]["seconds_a_file_after_the_first"] / run["seconds_a_file_after_the_first"], 3
            )
            for name, run in runs.items()
        },
    }


def digest_of(data: Path, files: int) -> str:
    """sha256 over names and bytes of the protein and merged files of the first ``files`` pairs."""
    wanted = {f"output_{number}" for number in range(1, files + 1)}
    outputs = sorted(
        path
        for path in data.rglob("*.pt")
        if not path.name.endswith("_DNABERT_S.pt") and "_".join(path.stem.split("_")[:2]) in wanted
    )
    if len(outputs) != 2 * files:
        raise SystemExit(f"{len(outputs)} protein and merged files where {2 * files} were expected")
    with ThreadPoolExecutor() as threads:
        lines = threads.map(lambda path: f"{file_digest(path)}  {path.relative_to(data)}\n", outputs)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    main()
