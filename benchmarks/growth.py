"""Seconds and memory of every command, against the number of sources, files and records.

    python benchmarks/growth.py --json benchmarks/results/growth.json

Four axes: from 10 to 10,000 sources of one record each, from genomes on, and files of one record each in two
sources; from 1,000 to a million records in files of 10,000, and sequences to embed and to predict. Encoders are tiny,
so what is measured is everything around them; the DNA encoder keeps its width of 768, so a million records need a GPU.
Each command is a process of its own: seconds of the clock and of the processors, and the largest memory of it or of
one of its workers. All rounds are listed, and the median decides.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from pathlib import Path

import gb_io

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo")]

CODONS = {
    "A": "GCT",
    "C": "TGC",
    "D": "GAC",
    "E": "GAG",
    "F": "TTC",
    "G": "GGC",
    "H": "CAC",
    "K": "AAG",
    "L": "CTC",
}
RESIDUES = 30
BASES = 3 * RESIDUES
HOSTS = ("plant", "fungi", "bacteria", "archaea", "protozoa", "invertebrate", "vertebrate_other")
TRAINING = ("--epochs", "2", "--bootstrap", "50", "--no-curves", "--split-by", "row")

Measure = dict[str, list[float]]


class Bench:
    """Runs commands, and notes what they took.

    Parameters
    ----------
    folder : Path
        Where the models lie.
    only : collection of str
        Commands to run; all others are left out. Empty for all.
    device : str
        Device of the encoders and the classifier.
    """

    def __init__(self, folder: Path, only: Collection[str], device: str) -> None:
        self.only = only
        self.device = ("--device", device)
        self.protein, self.dna = folder / "esm", folder / "dna"
        # In a process of its own: what this one has in memory counts for those that it starts.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_models, args=(self.protein, self.dna)
        )
        maker.start()
        maker.join()
        self.results: dict[str, Measure] = {}

    def run(self, data: Path, name: str, *arguments: str | Path, is_noted: bool = True) -> None:
        """Run ``nucpro NAME ARGUMENTS`` in a data folder, named ``.`` there, and note what it took."""
        if self.only and name not in self.only:
            return
        took = measured(data, name.split(maxsplit=1)[0], arguments)
        if not is_noted:
            return
        noted = self.results.setdefault(name, {})
        for key, value in took.items():
            noted.setdefault(key, []).append(value)
        print(f"  {name}: {took}", flush=True)


def make_models(protein: Path, dna: Path) -> None:
    import dna_stand_ins
    import stand_ins

    stand_ins.make_checkpoint(protein, width=16, layers=1, heads=2)
    dna_stand_ins.make_dna_checkpoint(dna, layers=1, feed_forward_width=64, vocabulary_size=256)
    dna_stand_ins.train_tokenizer(dna, ["".join(random.Random(1).choices("ACGT", k=200)) for _ in range(50)])


def measured(place: Path, command: str, arguments: Sequence[str | Path]) -> dict[str, float]:
    """Seconds and megabytes of one run of a command."""
    log = place.with_name("log")
    started = time.perf_counter()
    process = os.fork()
    if process == 0:
        os.chdir(place)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        os.execve(
            sys.executable, [sys.executable, "-m", "nucpro", command, *map(str, arguments)], environment
        )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(
            f"nucpro {command} {arguments}: exit {os.waitstatus_to_exitcode(status)}\n{log.read_text()[-3000:]}"
        )
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--axes", nargs="*", default=list(AXES), choices=list(AXES))
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--records", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="device of encoders and classifier")
    parser.add_argument("--only", nargs="*", default=[], help="commands to run, with those that they need")
    arguments = parser.parse_args()
    result = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    machine = described_machine(arguments.device)
    for axis in arguments.axes:
        for size in arguments.records if axis in ("records", "sequences") else arguments.sizes:
            print(axis, size, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(Path(folder), arguments.only, arguments.device)
                for number in range(arguments.rounds):
                    place = Path(folder) / str(number)
                    place.mkdir()
                    AXES[axis](bench, place / "data", size)
                    shutil.rmtree(place)
            result.setdefault("machines", {})[axis] = machine
            result.setdefault(axis, {}).setdefault(str(size), {}).update(bench.results)
            result["growth"] = growth(result)
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["growth"], indent=1))


def described_machine(device: str) -> dict[str, object]:
    """Hardware and versions; without loading torch, whose memory would count for every command."""
    facts: dict[str, object] = {
        "cpu_cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "device": device,
    }
    if device != "cpu":
        names = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return facts


def growth(result: dict[str, dict[str, dict[str, Measure]]]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times more a command takes at ten times the size: the two largest sizes of each axis."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for axis in (axis for axis in AXES if len(result.get(axis, {})) > 1):
        small, large = sorted(result[axis], key=int)[-2:]
        for name, measures in result[axis][large].items():
            before = result[axis][small].get(name)
            if before is not None:
                found.setdefault(axis, {})[name] = {
                    "from": int(small),
                    "to": int(large),
                    **{
                        key: round(statistics.median(measures[key]) / statistics.median(before[key]), 2)
                        for key in measures
                    },
                }
    return found


def frames(count: int) -> list[tuple[str, str]]:
    """Bases and residues of reading frames without a stop."""
    letters = random.Random(count)
    proteins = ("".join(letters.choices(list(CODONS), k=RESIDUES)) for _ in range(count))
    return [("".join(CODONS[residue] for residue in protein), protein) for protein in proteins]


def sources(bench: Bench, data: Path, count: int) -> None:
    """Genomes of one frame each, half of them viral, in sources of one record."""
    data.mkdir()
    for number, (bases, protein) in enumerate(frames(count)):
        group = "viral" if number % 2 == 0 else HOSTS[number // 2 % len(HOSTS)]
        accession = f"NC_{number:06d}"
        (data / f"{group}.{number}.1.genomic.fna.gz").write_bytes(
            gzip.compress(f">{accession}.1 made\n{bases}\n".encode(), 1)
        )
        cds = gb_io.Feature("CDS", gb_io.Range(0, BASES), [gb_io.Qualifier("translation", protein)])
        record = gb_io.Record(
            bases.lower().encode(),
            name=accession,
            accession=accession,
            version=f"{accession}.1",
            length=BASES,
            definition="made",
            molecule_type="DNA",
            division="VRL",
            features=[cds],
        )
        text = io.BytesIO()
        gb_io.dump([record], text)
        (data / f"{group}.{number}.genomic.gbff.gz").write_bytes(gzip.compress(text.getvalue(), 1))
    bench.run(data, "dataset", ".", "--length", str(BASES))
    chain(bench, data, 1)


def files(bench: Bench, data: Path, count: int) -> None:
    """Two sources in files of one record."""
    write_sources(data, count)
    chain(bench, data, 1)


def records(bench: Bench, data: Path, count: int) -> None:
    """Two sources in files of up to 10,000 records."""
    write_sources(data, count)
    chain(bench, data, min(count // 2, 10_000))


def sequences(bench: Bench, data: Path, count: int) -> None:
    """Proteins to embed, and contigs to predict by a small classifier."""
    write_sources(data, 1_000)
    vectors_of(bench, data, 500, is_noted=False)
    bench.run(data, "train", ".", "-o", "model", *TRAINING, *bench.device, is_noted=False)
    with (data / "contigs.fa").open("w") as contigs, (data / "proteins.fa").open("w") as proteins:
        for number, (bases, protein) in enumerate(frames(count)):
            contigs.write(f">c{number}\n{bases}\n")
            proteins.write(f">p{number}\n{protein}\n")
    models = ("--protein-model", bench.protein, "--dna-model", bench.dna)
    bench.run(data, "embed", "proteins.fa", "-o", "vectors.pt", *models[:2], *bench.device)
    chunks = ("--model", "model", "--length", str(BASES))
    bench.run(data, "predict", "contigs.fa", "-o", "predicted", *chunks, *models, *bench.device)


def write_sources(data: Path, count: int) -> None:
    data.mkdir()
    both = frames(count)
    for group, chosen in (("viral", both[::2]), ("plant", both[1::2])):
        names = [f"NC_{number:07d}.1_chunk_1F1" for number in range(len(chosen))]
        for kind, which in (("nucleotide", 0), ("protein", 1)):
            text = "".join(
                f">{group}_{name}\n{one[which]}\n" for name, one in zip(names, chosen, strict=True)
            )
            (data / f"{group}.1.1.identified_{kind}.fa").write_text(text)


def vectors_of(bench: Bench, data: Path, per_file: int, *, is_noted: bool = True) -> None:
    """From FASTA files to merged vectors."""
    size = ("--sequences-per-file", str(per_file))
    protein = ("--protein-model", bench.protein, *bench.device)
    extract = ("--data-dir", ".", *size, *protein, "--no-report")
    bench.run(data, "split", ".", *size, is_noted=is_noted)
    bench.run(data, "embed-dna", ".", *size, "--dna-model", bench.dna, *bench.device, is_noted=is_noted)
    bench.run(data, "extract", *extract, is_noted=is_noted)
    if is_noted:
        bench.run(data, "extract again", *extract)


def chain(bench: Bench, data: Path, per_file: int) -> None:
    """From FASTA files to a classifier."""
    size = ("--sequences-per-file", str(per_file))
    vectors_of(bench, data, per_file)
    bench.run(data, "status", ".", *size)
    bench.run(data, "validate", ".", *size)
    bench.run(data, "inspect", ".")
    bench.run(data, "report", ".", *size)
    bench.run(data, "export", ".", "--to", "npz", "-o", data.with_name("exported"), *size)
    bench.run(data, "export again", ".", "--to", "npz", "-o", data.with_name("exported"), *size)
    bench.run(data, "train", ".", "-o", "model", *TRAINING, *bench.device)


AXES: dict[str, Callable[[Bench, Path, int], None]] = {
    "sources": sources,
    "files": files,
    "records": records,
    "sequences": sequences,
}

if __name__ == "__main__":
    main()
