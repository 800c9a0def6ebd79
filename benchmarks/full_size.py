"""The full size: 201 files, 2.01 million sequences, from parent FASTA to validated, every stage timed.

    python benchmarks/full_size.py --json benchmarks/results/full_size.json [--engine ray] [--files 201] [--tiny]

Makes parent FASTA files of both sequence types and untrained checkpoints of both real shapes, then runs
``nucpro split``, ``nucpro embed-dna`` and ``nucpro extract`` as a user does, each in a process of its own, and
``nucpro validate`` at the end. Needs 45 GB of disk for 201 files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from end_to_end import ROOT, machine, make_data, make_model, run_job
from gpu_dna import dna_stand_ins, genome_stretches

DNA_SHAPE = {"width": 768, "layers": 12, "feed_forward_width": 3072, "vocabulary_size": 4096}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=201)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--tiny", action="store_true", help="a few small files on the CPU: to try the script")
    arguments = parser.parse_args()
    files, size, device = (3, 50, "cpu") if arguments.tiny else (arguments.files, 10_000, "cuda")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        data = parents_only(make_data(here / "data", files, size), size)
        dna_model = make_dna_model(here / "untrained_dnabert_s", tiny=arguments.tiny)
        protein_model = make_model(here / "untrained_650m", arguments.tiny)
        run = ["--device", device, "--engine", arguments.engine, "--sequences-per-file", str(size)]
        stages: dict[str, object] = {
            "split": seconds_of("split", str(data), "--sequences-per-file", str(size)),
            "embed-dna": seconds_of("embed-dna", str(data), "--dna-model", str(dna_model), *run),
            "extract": run_job(data, ["--protein-model", str(protein_model), *run]),
            "validate": seconds_of("validate", str(data), "--sequences-per-file", str(size)),
        }
    result = {
        "machine": machine(),
        "engine": arguments.engine,
        "sequences": files * size,
        "stages": stages,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def parents_only(data: Path, size: int) -> Path:
    """Leave the parent FASTA files alone, with random bases: split files and vectors are what is made."""
    for folder in data.glob("*.identified_*"):
        if folder.is_dir():
            shutil.rmtree(folder)
    parent = data / "viral.1.1.identified_nucleotide.fa"
    bases = random.Random(2)
    with parent.open() as lines:
        names = [line for line in islice(lines, 2 * size) if line.startswith(">")]
    text = "".join(f"{name}{''.join(bases.choices('ACGT', k=300))}\n" for name in names)
    repeats = parent.stat().st_size // len(text)
    with parent.open("w") as stream:
        stream.writelines([text] * repeats)
    return data


def make_dna_model(folder: Path, *, tiny: bool) -> Path:
    """Untrained checkpoint of DNABERT-S's shape, its tokenizer trained on the demo's genomes."""
    shape = {**DNA_SHAPE, "layers": 1, "feed_forward_width": 80, "vocabulary_size": 96} if tiny else DNA_SHAPE
    dna_stand_ins.make_dna_checkpoint(folder, heads=12, **shape)
    texts = [stretch.decode() for stretch in genome_stretches(200 if tiny else 2_000)]
    dna_stand_ins.train_tokenizer(folder, texts, vocabulary_size=shape["vocabulary_size"])
    return folder


def seconds_of(*command: str) -> float:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nucpro", *command], check=True, env=environment)
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
