"""The whole job on one GPU: FASTA on disk to validated merged files on disk, started as a user starts it.

    python benchmarks/end_to_end.py --json OUT.json [--files 40] [--tiny]

Makes a data folder of full files (random residues, lengths of real reading frames), DNABERT-S files in the
old list-of-floats schema, and an untrained checkpoint of the 650M shape. Then times ``nucpro extract`` in
a process of its own: start to first file (the first start also builds kernels, the second finds them in
the cache), the extraction, the whole run, and the memory of all its processes. Then the share of time that
the GPU computes, from a profile of a few files in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo")]

import stand_ins

SHAPE = {"width": 1280, "layers": 33, "heads": 20}
FORWARD_TOKENS = 102


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--tiny", action="store_true", help="a few small files on the CPU: to try the script")
    arguments = parser.parse_args()
    size, device = (50, "cpu") if arguments.tiny else (10_000, "cuda")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model = make_model(here / "untrained_650m", arguments.tiny)
        data = make_data(here / "data", arguments.files, size)
        options = ["--protein-model", str(model), "--device", device, "--sequences-per-file", str(size)]
        few = make_data(here / "few", 2, size)
        result = {
            "machine": machine(),
            "files": arguments.files,
            "sequences_per_file": size,
            "first_start": run_job(few, options),
            "run": run_job(data, options),
            "nothing_to_do": run_job(data, options),
            "gpu": None if arguments.tiny else busy_share(make_data(here / "profiled", 5, size), model, size),
        }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def make_model(folder: Path, tiny: bool) -> Path:
    shape = {"width": 64, "layers": 2, "heads": 4} if tiny else SHAPE
    started = time.perf_counter()
    stand_ins.make_checkpoint(folder, **shape, feed_forward=4 * shape["width"])
    print(f"checkpoint made in {time.perf_counter() - started:.1f} s", flush=True)
    return folder


def make_data(data: Path, files: int, size: int) -> Path:
    """A viral source of ``files`` full files: the same records in each, DNA files as links to one file."""
    letters = random.Random(1)
    names = [f"NC_{number:06d}.1_chunk_{number % 97}F{number % 3 + 1}" for number in range(size)]
    residues = ["".join(letters.choices("ACDEFGHIKLMNPQRSTVWY", k=99 + (n % 3 == 0))) for n in range(size)]
    nucleotide, protein = data / "viral.1.1.identified_nucleotide", data / "viral.1.1.identified_protein"
    nucleotide.mkdir(parents=True)
    protein.mkdir()
    texts = {
        nucleotide: "".join(f">{name}\n{'ACGT' * 75}\n" for name in names),
        protein: "".join(f">{name}\n{sequence}\n" for name, sequence in zip(names, residues, strict=True)),
    }
    dna = data / "dna.pt"
    rows = torch.randn(size, 768, generator=torch.Generator().manual_seed(1)).tolist()
    entries = [{"label": n, "mean_representation": row} for n, row in zip(names, rows, strict=True)]
    torch.save({"nucleotide": names, "data": entries}, dna)
    for folder, text in texts.items():
        with folder.with_suffix(folder.suffix + ".fa").open("w") as parent:
            parent.writelines([text] * files)
        for number in range(1, files + 1):
            (folder / f"output_{number}.fa").write_text(text)
    for number in range(1, files + 1):
        os.link(dna, nucleotide / f"output_{number}_DNABERT_S.pt")
    dna.unlink()
    return data


def run_job(data: Path, options: list[str]) -> dict[str, float]:
    """Time one run in a process of its own, and watch the memory of all its processes."""
    command = [sys.executable, "-m", "nucpro", "extract", "--data-dir", str(data), *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    watch = MemoryWatch(process.pid)
    lines: list[tuple[float, str]] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.perf_counter() - started, line.rstrip()))  # noqa: PERF401 - the clock is read as lines come
    code = process.wait()
    total = time.perf_counter() - started
    watch.stop()
    print("\n".join(f"{when:8.1f} {text}" for when, text in lines if "Stale" not in text), flush=True)
    if code or not lines[-1][1].startswith("Validation passed"):
        raise SystemExit(f"the run failed with exit code {code}")
    return {"seconds": total, "peak_host_gib": watch.peak / 2**30, **milestones(lines)}


def milestones(lines: list[tuple[float, str]]) -> dict[str, float]:
    extracted = [when for when, text in lines if re.match(r"\[\d+/\d+\] Extracted", text)]
    if not extracted:
        return {}
    loading = next(when for when, text in lines if "Loading " in text)
    first, last = extracted[0], extracted[-1]
    found: dict[str, float] = {
        "model_loading_starts": loading,
        "first_file_done": first,
        "last_file_done": last,
    }
    for _, text in lines:
        rates = re.search(r"rate: ([\d,]+) sequences/s, ([\d,]+) residues/s, ([\d,]+) tokens/s", text)
        if rates:
            found["tokens_per_second_of_extraction"] = float(rates[3].replace(",", ""))
    if len(extracted) > 1:
        found["seconds_a_file_after_the_first"] = (last - first) / (len(extracted) - 1)
    return found


class MemoryWatch:
    """Largest sum of private memory of a process and its children, in bytes."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.2):
            self.peak = max(self.peak, sum(map(private_bytes, family(self._pid))))


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(member for child in children for member in family(int(child)))]


def private_bytes(pid: int) -> int:
    """Anonymous memory: what a process holds beside files that it maps (the weights, the libraries)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def busy_share(data: Path, model: Path, size: int) -> dict[str, float]:
    """Share of the time between the first and the last kernel in which the GPU computes."""
    from torch.profiler import ProfilerActivity, profile

    from nucpro.extraction.run import Run
    from nucpro.options import Options

    with Run(Options(data, protein_model=str(model), sequences_per_file=size)) as job:
        job.discover()
        job.check()
        job.prepare()
        job.load()
        work = job.making()
        next(work)  # kernels are built and caches are warm from the second file on
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in work:
                pass
        job.finish()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return {"busy_share": busy / (reached - spans[0][0]), "span_seconds": (reached - spans[0][0]) / 1e6}


def machine() -> dict[str, str | int | None]:
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu_cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": shutil.which("cc"),
    }


if __name__ == "__main__":
    main()
