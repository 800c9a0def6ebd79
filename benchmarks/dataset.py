"""Genomes to training FASTA: ``nucpro dataset`` against a plain Biopython loop, on cores, and in memory.

    python benchmarks/dataset.py            speed against the loop (equal output is proven), one and two cores
    python benchmarks/dataset.py --large    memory on 1 GB GenBank files and on one chromosome of 250 million bases

All write into ``benchmarks/results/dataset.json``. The synthetic genomes are made here, from a seed; yeast
chromosome I comes from ``demo/genomes``. The loop needs biopython, which nothing else in the project does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import gb_io
import needletail
import numpy as np

from nucpro.genomes.conversion import Conversion, convert
from nucpro.genomes.dataset import build
from nucpro.genomes.genbank import read_annotations
from nucpro.genomes.options import DatasetOptions
from nucpro.genomes.paths import find_genomes

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "dataset.json"
DEMO = HERE.parent / "demo" / "genomes"
BACTERIUM = 5_000_000
CHROMOSOME = 250_000_000
GIGABYTE = 1_000_000_000
ROUNDS = 5
COPIES = 60
CORE_ROUNDS = 4

CODONS = [first + second + third for first in "TCAG" for second in "TCAG" for third in "TCAG"]
RESIDUES = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
COMPLEMENT = str.maketrans("ACGT", "TGCA")


# ---- synthetic genomes


@dataclass
class Genome:
    bases: str
    features: list[gb_io.Feature]


def synthetic_genome(length: int, seed: int, coding_share: float = 0.9) -> Genome:
    """Random genes of 80 to 600 codons on both strands, with random bases between them."""
    generator = np.random.default_rng(seed)
    sense = [index for index, residue in enumerate(RESIDUES) if residue != "*"]
    codons, residues = np.array(CODONS), np.array(list(RESIDUES))
    parts: list[str] = []
    features: list[gb_io.Feature] = []
    position = 0
    while position < length:
        size = int(generator.integers(80, 600))
        gap = int(size * 3 * (1 / coding_share - 1))
        chosen = generator.choice(sense, size)
        gene = "ATG" + "".join(codons[chosen]) + "TAA"
        protein = "M" + "".join(residues[chosen])
        location: gb_io.Location = gb_io.Range(position + gap, position + gap + len(gene))
        if generator.random() < 0.5:
            gene = gene.translate(COMPLEMENT)[::-1]
            location = gb_io.Complement(location)
        parts += ["".join(np.array(list("ACGT"))[generator.integers(0, 4, gap)]), gene]
        position += gap + len(gene)
        features.extend(annotated(location, len(features), protein))
    return Genome("".join(parts), features)


def annotated(location: gb_io.Location, number: int, protein: str) -> Iterator[gb_io.Feature]:
    tag = gb_io.Qualifier("locus_tag", f"SYN_{number:06d}")
    yield gb_io.Feature("gene", location, [tag])
    facts = {
        "codon_start": "1",
        "transl_table": "11",
        "product": "hypothetical protein",
        "translation": protein,
    }
    yield gb_io.Feature("CDS", location, [tag, *(gb_io.Qualifier(*fact) for fact in facts.items())])


def write_pair(folder: Path, stem: str, genome: Genome, copies: int = 1) -> int:
    """Write a pair of files that hold a genome a number of times, and give the size of the GenBank text."""
    size = 0
    with (
        gzip.open(folder / f"{stem}.genomic.gbff.gz", "wb", compresslevel=1) as genbank,
        gzip.open(folder / f"{stem}.1.genomic.fna.gz", "wb", compresslevel=1) as fasta,
    ):
        for number in range(copies):
            name = f"NC_{number:06d}"
            gb_io.dump(record_of(name, genome), genbank)
            size = genbank.tell()
            lines = (genome.bases[i : i + 80] for i in range(0, len(genome.bases), 80))
            fasta.write(f">{name}.1 synthetic\n{chr(10).join(lines)}\n".encode())
    return size


def record_of(name: str, genome: Genome) -> gb_io.Record:
    return gb_io.Record(
        genome.bases.lower().encode(),
        name=name,
        accession=name,
        version=f"{name}.1",
        length=len(genome.bases),
        definition="synthetic",
        molecule_type="DNA",
        division="BCT",
        features=genome.features,
    )


# ---- the plain loop, written from the rules in docs/dataset.md


def chunk_positions(length: int, size: int) -> Iterator[tuple[int, int]]:
    count = -(-length // size)
    surplus = count * size - length
    back = surplus // count
    longer = surplus - back * (count - 1)
    gone_back = 0
    for number in range(count):
        start = number * size - gone_back
        yield start, min(start + size, length)
        gone_back += back + 1 if number < longer else back


def plain_loop(fasta: Path, genbank: Path, size: int, folder: Path) -> None:
    from Bio import SeqIO

    proteins = {}
    with gzip.open(genbank, "rt") as file:
        for record in SeqIO.parse(file, "genbank"):
            genes = [feature for feature in record.features if feature.type == "CDS"]
            proteins[record.id] = [gene.qualifiers.get("translation", [""])[0] for gene in genes]
    with (
        gzip.open(fasta, "rt") as file,
        (folder / "nucleotide.fa").open("w") as nucleotide_file,
        (folder / "protein.fa").open("w") as protein_file,
    ):
        for record in SeqIO.parse(file, "fasta"):
            known = proteins.get(record.id, [])
            for number, (start, end) in enumerate(chunk_positions(len(record.seq), size), start=1):
                chunk = record.seq[start:end].upper()
                if set(chunk) - set("ACGT"):
                    continue
                for letter, strand in (("F", chunk), ("R", chunk.reverse_complement())):
                    for shift in range(3):
                        codons = (len(strand) - shift) // 3
                        protein = str(strand[shift : shift + 3 * codons].translate())
                        if protein and "*" not in protein and any(protein in other for other in known):
                            name = f"{record.id}_chunk_{number}{letter}{shift + 1}"
                            nucleotide_file.write(f">{name}\n{strand[shift : shift + 3 * codons + 1]}\n")
                            protein_file.write(f">{name}\n{protein}\n")


# ---- measurements


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    call()
    return statistics.median(seconds(call) for _ in range(rounds))


def forget(folder: Path) -> None:
    """Remove what a run made."""
    for path in folder.glob("*.identified*"):
        path.unlink()


def against_the_loop(folder: Path, size: int) -> dict[str, object]:
    """Time both on the only pair of a folder, and require equal files."""
    (pair,) = find_genomes(folder).pairs
    options = DatasetOptions(size, workers=1)

    def once() -> None:
        forget(folder)
        convert(Conversion(pair, options))

    def read_only() -> None:
        for _ in read_annotations(pair.genbank):
            pass
        for record in needletail.parse_fastx_file(str(pair.fasta)):
            len(record.seq)

    ours, reading = median(once), median(read_only)
    # The loop leaves its files to the system; nucpro waits until they are on disk, which a small file feels.
    with mock.patch("os.fsync"):
        unsynced = median(once)
    loop = seconds(lambda: plain_loop(pair.fasta, pair.genbank, size, folder))
    for sequence_type, path in (
        ("nucleotide", pair.source.nucleotide_fasta),
        ("protein", pair.source.protein_fasta),
    ):
        if path.read_bytes() != (folder / f"{sequence_type}.fa").read_bytes():
            raise SystemExit(f"{path}: differs from what the plain loop writes")
    kept = pair.source.nucleotide_fasta.read_bytes().count(b">")
    return {
        "chunk_bases": size,
        "frames_kept": kept,
        "plain_loop_s": round(loop, 3),
        "nucpro_s": round(ours, 4),
        "nucpro_without_waiting_for_the_disk_s": round(unsynced, 4),
        "times_faster": round(loop / ours, 1),
        "times_faster_without_waiting_for_the_disk": round(loop / unsynced, 1),
        "reading_both_files_alone_s": round(reading, 4),
        "equal_output": True,
    }


def on_cores(folder: Path, pair_folder: Path) -> dict[str, object]:
    """Convert equal pairs with one and with two workers."""
    for number in range(1, COPIES + 1):
        for path in pair_folder.glob("*.gz"):
            stem, _, rest = path.name.partition(".1.")
            os.link(path, folder / f"{stem}.{number}.{rest}")
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(CORE_ROUNDS):
        for workers, rounds in times.items():
            forget(folder)
            rounds.append(seconds(lambda count=workers: build(folder, DatasetOptions(300, workers=count))))
    one, two = min(times[1]), min(times[2])
    return {
        "pairs": COPIES,
        "bases_each": BACTERIUM,
        "best_of_rounds": CORE_ROUNDS,
        "one_worker_s": round(one, 2),
        "two_workers_s": round(two, 2),
        "times_faster": round(one / two, 2),
    }


def measured_convert(folder: Path) -> tuple[float, int, int]:
    """Seconds, peak memory in bytes before and after a conversion; runs in a process of its own."""
    before = peak_memory()
    (pair,) = find_genomes(folder).pairs
    took = seconds(lambda: convert(Conversion(pair, DatasetOptions(300))))
    return took, before, peak_memory()


def peak_memory() -> int:
    """Largest resident size of this process in bytes; unlike ``ru_maxrss`` it forgets the process before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def memory_of(folder: Path, genome: Genome, copies: int) -> dict[str, object]:
    size = write_pair(folder, "bacteria.1", genome, copies)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        took, before, peak = pool.submit(measured_convert, folder).result()
    return {
        "records": copies,
        "bases_each": len(genome.bases),
        "genbank_bytes": size,
        "seconds": round(took, 1),
        "peak_memory_bytes": peak,
        "of_which_before_the_first_record": before,
        "peak_memory_by_bases_of_longest_record": round(peak / len(genome.bases), 2),
    }


# ---- the report


def circumstances() -> dict[str, object]:
    names = ("nucpro", "numpy", "gb-io", "needletail", "biopython")
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def speed(work: Path) -> dict[str, object]:
    synthetic, yeast = work / "synthetic", work / "yeast"
    for folder in (synthetic, yeast):
        folder.mkdir()
    write_pair(synthetic, "bacteria.1", synthetic_genome(BACTERIUM, seed=1))
    for path in DEMO.glob("fungi*.gz"):
        shutil.copy(path, yeast)
    return {
        "circumstances": circumstances(),
        "synthetic_5_million_bases": [against_the_loop(synthetic, size) for size in (300, 500)],
        "yeast_chromosome_1": [against_the_loop(yeast, size) for size in (300, 500)],
    }


def cores(work: Path) -> dict[str, object]:
    synthetic, copies = work / "synthetic", work / "copies"
    for folder in (synthetic, copies):
        folder.mkdir()
    write_pair(synthetic, "bacteria.1", synthetic_genome(BACTERIUM, seed=1))
    return {"circumstances": circumstances(), **on_cores(copies, synthetic)}


def memory(work: Path) -> dict[str, object]:
    bacterium = synthetic_genome(BACTERIUM, seed=1)
    contig = synthetic_genome(5_000, seed=2)
    chromosome = synthetic_genome(CHROMOSOME // 100, seed=3, coding_share=0.02)
    cases = {
        "genomes_1_gb": (bacterium, 100),
        "contigs_1_gb": (contig, 95_000),
        "one_chromosome": (repeated(chromosome, 100), 1),
    }
    results: dict[str, object] = {"circumstances": circumstances()}
    for name, (genome, copies) in cases.items():
        folder = work / name
        folder.mkdir()
        results[name] = memory_of(folder, genome, copies)
        shutil.rmtree(folder)
    return results


def repeated(genome: Genome, times: int) -> Genome:
    """A long record: the features lie in the first of the copies only, which is enough to be looked for."""
    return Genome(genome.bases * times, genome.features)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="measure memory on 1 GB files instead of speed")
    parser.add_argument(
        "--part", choices=("speed", "cores"), help="only one part of the measurements of speed"
    )
    parser.add_argument("--work", type=Path, help="folder for temporary files; the large run needs 3 GB")
    choices = parser.parse_args()
    parts = {"memory": memory} if choices.large else {"speed": speed, "cores": cores}
    for name, measure in parts.items():
        if choices.part in (None, name):
            with TemporaryDirectory(dir=choices.work) as folder:
                note(name, measure(Path(folder)))


def note(part: str, result: dict[str, object]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[part] = result
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
