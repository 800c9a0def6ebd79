"""Speed of ``nucpro predict`` on one GPU, beside its two encoders alone on the same frames.

    python benchmarks/predict.py --json benchmarks/results/predict_h100.json
    python benchmarks/predict.py --engines --json benchmarks/results/predict_two_gpus_h200.json    # on two GPUs
    python benchmarks/predict.py --tiny --json OUT.json       # proves the script on any machine in a minute

Contigs are the demo's genomes, again and again under other ids until there is enough work. The models have the
shapes of ESM-2 650M and DNABERT-S and random weights, the classifier takes 2,048 columns. "Encoders alone" has
everything that needs no device done before the clock starts: frames are found, tokens made and batches planned, so it
is what the device can do at most. The prediction is a process of its own, as a user starts it, and is judged by
its own lines: frames over the seconds from the first unit's start to the last one's end, models loaded. The
seconds of the work that needs no device are measured one by one, for a unit, in one thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo")]

import dna_stand_ins
import stand_ins
from nucpro.classifier.card import ModelCard
from nucpro.classifier.model import Classifier, save
from nucpro.embedding import encoder as encoders
from nucpro.embedding.batches import Prepared, prepare
from nucpro.embedding.encoder import FastaEncoder
from nucpro.formats.fasta import stream
from nucpro.formats.sequences import DNA_WIDTH, LIMITS, SequenceType
from nucpro.options import Options
from nucpro.prediction.contigs import Unit, UnitFrames, frames_of, units_of
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.verdict import ScoredUnit
from nucpro.prediction.work import Work

LENGTH = 300
SCORES = "frames.tsv"


@dataclass(frozen=True)
class Size:
    """Shapes of the models and amount of work."""

    protein: dict[str, int]
    dna: dict[str, int]
    copies: int
    chunks_per_unit: int
    units: int
    rounds: int


FULL = Size(
    protein={"width": 1280, "layers": 33, "heads": 20, "feed_forward": 5120},
    dna={"width": 768, "layers": 12, "heads": 12, "feed_forward_width": 3072, "vocabulary_size": 4096},
    copies=120,
    chunks_per_unit=8_192,
    units=3,
    rounds=2,
)
TINY = Size(
    protein={"width": 32, "layers": 2, "heads": 4, "feed_forward": 64},
    dna={"width": 768, "layers": 1, "heads": 12, "feed_forward_width": 64, "vocabulary_size": 256},
    copies=1,
    chunks_per_unit=256,
    units=2,
    rounds=2,
)


@dataclass(frozen=True)
class Bench:
    """Everything that measurements share."""

    size: Size
    device: str
    fasta: Path
    protein_model: Path
    dna_model: Path
    classifier: Path

    @property
    def options(self) -> Options:
        return Options(
            protein_model=str(self.protein_model), dna_model=str(self.dna_model), device=self.device
        )

    def units(self) -> list[Unit]:
        records = stream(self.fasta)
        return list(islice(units_of(records, LENGTH, self.size.chunks_per_unit), self.size.units))


# ---------------------------------------------------------------------------------------------- set up


def make_contigs(path: Path, copies: int) -> list[str]:
    """Write the demo's genomes ``copies`` times; gives the sequences of one copy."""
    records = [
        (name, bases.decode())
        for genomes in sorted((ROOT / "demo" / "genomes").glob("*.fna.gz"))
        for name, bases in stream(genomes)
    ]
    with gzip.open(path, "wt", compresslevel=1) as file:
        for copy in range(copies):
            file.writelines(f">{name}/{copy}\n{bases}\n" for name, bases in records)
    return [bases for _, bases in records]


def make_bench(folder: Path, size: Size, device: str) -> Bench:
    started = time.perf_counter()
    fasta = folder / "contigs.fna.gz"
    sequences = make_contigs(fasta, size.copies)
    protein = stand_ins.make_checkpoint(folder / "untrained_esm2", **size.protein)
    dna = dna_stand_ins.make_dna_checkpoint(folder / "untrained_dnabert", **size.dna)
    stretches = [s[i : i + LENGTH] for s in sequences for i in range(0, len(s), 10 * LENGTH)]
    dna_stand_ins.train_tokenizer(dna, stretches, vocabulary_size=size.dna["vocabulary_size"])
    options = Options(protein_model=str(protein), dna_model=str(dna), device=device)
    recipes = {
        sequence_type: encoders.identify(options, sequence_type).recipe for sequence_type in SequenceType
    }
    card = ModelCard(
        input_width=DNA_WIDTH + size.protein["width"],
        widths={"dna": DNA_WIDTH, "protein": size.protein["width"]},
        encoders={str(sequence_type): dict(recipe.made_by) for sequence_type, recipe in recipes.items()},
        chunk_length=LENGTH,
    )
    save(folder / "untrained_classifier", Classifier(card.input_width).eval(), card)
    print(f"models and contigs made in {time.perf_counter() - started:.1f} s", flush=True)
    return Bench(size, device, fasta, protein, dna, folder / "untrained_classifier")


# ---------------------------------------------------------------------------------------------- measurements


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """Median of some runs, after one that does not count; each ends when the device has finished."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def prepared(encoder: FastaEncoder, frames: UnitFrames) -> Prepared:
    letters = frames.nucleotides if encoder.sequence_type is SequenceType.DNA else frames.proteins
    return prepare(
        frames.ids,
        letters,
        encoder.tokenizer,
        max_residues=LIMITS[encoder.sequence_type],
        tokens_per_batch=encoder.embedder.tokens_per_batch,
    )


def measure_encoders(bench: Bench, loaded: dict[SequenceType, FastaEncoder], units: list[UnitFrames]) -> dict:
    """Frames a second of each encoder, and of one after the other, from tokens to vectors in host memory."""
    work = {
        sequence_type: [prepared(encoder, frames) for frames in units]
        for sequence_type, encoder in loaded.items()
    }

    def run(sequence_types: list[SequenceType]) -> None:
        pending = [
            loaded[sequence_type].embedder.submit(part)
            for sequence_type in sequence_types
            for part in work[sequence_type]
        ]
        for vectors in pending:
            vectors.result()

    count = sum(map(len, units))
    found = {
        f"{sequence_type}, frames/s": count
        / median_seconds(lambda sequence_type=sequence_type: run([sequence_type]), bench.size.rounds)
        for sequence_type in loaded
    }
    both = median_seconds(lambda: run(list(loaded)), bench.size.rounds)
    tokens = {
        f"{sequence_type}, tokens a frame": sum(p.tokens for p in parts) / count
        for sequence_type, parts in work.items()
    }
    return {**found, **tokens, "both, frames/s": count / both, "frames": count}


def measure_host(bench: Bench, loaded: dict[SequenceType, FastaEncoder], unit: Unit, folder: Path) -> dict:
    """Seconds of the work on one unit that needs no device, in one thread."""
    frames = frames_of(unit)
    work = Work(OutputFolder(folder))
    folder.mkdir()
    work.start({})
    scored = ScoredUnit.of(frames, [0.123456] * len(frames), 0)
    runs: dict[str, Callable[[], object]] = {
        "reading frames": lambda: frames_of(unit),
        "keeping the scores": lambda: work.commit(unit, scored),
        **{
            f"tokens of {sequence_type}": lambda e=encoder: prepared(e, frames)
            for sequence_type, encoder in loaded.items()
        },
    }
    times = {name: median_seconds(run, bench.size.rounds) for name, run in runs.items()}
    return {"chunks": unit.chunks, "frames": len(frames), **times}


def measure_prediction(bench: Bench, output: Path, *engine: str) -> dict[str, float]:
    """One run of the command in a process of its own."""
    command = [sys.executable, "-m", "nucpro", "predict", str(bench.fasta), "--model", str(bench.classifier)]
    command += ["--protein-model", str(bench.protein_model), "--dna-model", str(bench.dna_model)]
    command += ["--device", bench.device, "--output", str(output)]
    command += ["--chunks-per-unit", str(bench.size.chunks_per_unit), *engine]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    started = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - started
    print(run.stdout[-1500:], flush=True)
    rate = re.search(r"^(\d+) frames in ([\d.]+) s: ([\d,.]+) frames/s$", run.stdout, re.MULTILINE)
    if run.returncode or rate is None:
        raise SystemExit(f"the prediction failed with exit code {run.returncode}: {run.stderr}")
    units = [float(found) for found in re.findall(r"Scored .*, ([\d.]+)s$", run.stdout, re.MULTILINE)]
    record = json.loads((output / "prediction.json").read_bytes())
    frames = int(rate[1])
    # The first unit waits for the device to get ready, the last ones have no successor beside them.
    middle = units[3:-2]
    # With two encoders, units come in pairs: the mean tells their rate, the median does not.
    steady = (
        {"seconds of a unit, median": statistics.median(middle), "mean": statistics.fmean(middle)}
        if middle
        else {}
    )
    return {
        "frames": frames,
        "chunks": record["counts"]["chunks"],
        "bases": record["counts"]["bases"],
        "seconds_scoring": float(rate[2]),
        "frames_per_second": frames / float(rate[2]),
        "seconds_in_all": seconds,
        **steady,
    }


def measure_engines(bench: Bench, folder: Path) -> dict[str, dict]:
    """The same prediction by the local engine and by Ray with one encoder a GPU; kernels are built before."""
    few = replace(bench, fasta=folder / "few.fna.gz")
    make_contigs(few.fasta, 1)
    measure_prediction(few, folder / "few")
    local = measure_prediction(bench, folder / "local")
    ray = measure_prediction(bench, folder / "ray", "--engine", "ray", "--workers", "2")
    same = (folder / "local" / SCORES).read_bytes() == (folder / "ray" / SCORES).read_bytes()
    return {
        "hardware": {**hardware(bench.device), "gpus": torch.cuda.device_count()},
        "size": asdict(bench.size),
        "local engine, one GPU": local,
        "ray, two encoders": ray,
        "conclusions": {
            "equal scores": same,
            "times the frames/s": ray["frames_per_second"] / local["frames_per_second"],
            "times as soon done": local["seconds_in_all"] / ray["seconds_in_all"],
        },
    }


def hardware(device: str) -> dict[str, str | int | None]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def measure(bench: Bench, folder: Path) -> dict[str, dict]:
    prediction = measure_prediction(bench, folder / "prediction")
    loaded = {
        sequence_type: encoders.load(encoders.identify(bench.options, sequence_type), bench.options)
        for sequence_type in (SequenceType.DNA, SequenceType.PROTEIN)
    }
    units = bench.units()
    alone = measure_encoders(bench, loaded, [frames_of(unit) for unit in units])
    return {
        "hardware": hardware(bench.device),
        "size": asdict(bench.size),
        "encoders alone": alone,
        "host work on one unit, seconds": measure_host(bench, loaded, units[0], folder / "host"),
        "prediction": prediction,
        "conclusions": {
            "share of the encoders' rate": prediction["frames_per_second"] / alone["both, frames/s"]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--copies", type=int, help="copies of the demo's genomes")
    parser.add_argument("--engines", action="store_true", help="one GPU beside two on Ray, and nothing else")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: to try the script")
    arguments = parser.parse_args()
    size, device = (TINY, "cpu") if arguments.tiny else (FULL, "cuda")
    if arguments.copies:
        size = Size(**{**asdict(size), "copies": arguments.copies})
    with tempfile.TemporaryDirectory() as name:
        compare = measure_engines if arguments.engines else measure
        result = compare(make_bench(Path(name), size, device), Path(name))
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
