"""The whole job on one GPU and on two: same bytes, and how much sooner.

    python benchmarks/ray_two_gpus.py --json benchmarks/results/ray_two_gpus.json [--files 40] [--tiny]

Makes a data folder of full files and an untrained checkpoint of the 650M shape, as ``end_to_end.py`` does,
and times ``nucpro extract``, each run in a process of its own on a copy of the folder: the local engine, Ray
with one encoder, Ray with one a GPU. A short run comes first, so that all of them find kernels built. The
outputs of all runs must be equal, byte for byte. The rate is that from the first file to the last, which is
the rate of a long run; the time of the whole run, start and validation included, stands beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
import torch
from end_to_end import machine, make_data, make_model, run_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--tiny", action="store_true", help="small files on the CPU: to try the script")
    arguments = parser.parse_args()
    gpus = torch.cuda.device_count()
    if gpus < 2 and not arguments.tiny:
        raise SystemExit(f"this machine has {gpus} GPUs, and two are compared; try the script with --tiny")
    result = compare(arguments.files, tiny=arguments.tiny)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def compare(files: int, *, tiny: bool) -> dict[str, object]:
    size, device = (50, "cpu") if tiny else (10_000, "cuda")
    engines = {
        "local": [],
        "ray_1": ["--engine", "ray", "--workers", "1"],
        "ray_2": ["--engine", "ray", "--workers", "2"],
    }
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model = make_model(here / "untrained_650m", tiny)
        options = ["--protein-model", str(model), "--device", device, "--sequences-per-file", str(size)]
        run_job(make_data(here / "few", 2, size), options)
        pristine = make_data(here / "pristine", files, size)
        runs, digests = {}, {}
        for name, engine in engines.items():
            # Inputs are never written to, so links do.
            data = Path(shutil.copytree(pristine, here / name, copy_function=os.link))
            runs[name] = run_job(data, [*options, *engine])
            digests[name] = digest_of(data)
            shutil.rmtree(data)
    if len(set(digests.values())) > 1:
        raise SystemExit(f"engines made different bytes: {digests}")
    return {
        "machine": {**machine(), "gpus": torch.cuda.device_count(), "ray": ray.__version__},
        "files": files,
        "sequences_per_file": size,
        "runs": runs,
        "outputs_sha256": digests["local"],
        "times_the_rate_of_one_gpu": ratio(runs, "seconds_a_file_after_the_first"),
        "times_as_soon_done": ratio(runs, "seconds"),
    }


def ratio(runs: dict[str, dict[str, float]], what: str) -> dict[str, float]:
    """What two encoders gain over one on Ray, and over the local engine."""
    return {f"than_{name}": round(runs[name][what] / runs["ray_2"][what], 3) for name in ("ray_1", "local")}


def digest_of(data: Path) -> str:
    """sha256 over names and bytes of all protein and merged files."""
    outputs = sorted(path for path in data.rglob("*.pt") if not path.name.endswith("_DNABERT_S.pt"))
    with ThreadPoolExecutor() as threads:
        lines = threads.map(lambda path: f"{file_digest(path)}  {path.relative_to(data)}\n", outputs)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    main()
