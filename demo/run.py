"""The whole way on a small data folder, on the CPU: from real genomes to validated training files.

Run by ``make demo``. Everything is made below ``build/demo``, by the commands that a user would give; the
last one is given twice: the second time it has nothing to do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import dna_stand_ins
import stand_ins
from held_out import write_held_out
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats.fasta import read
from training import train_demo

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = ROOT / "build" / "demo"
SEQUENCES_PER_FILE = 20


def main() -> int:
    """Make the data folder and run the job on it."""
    data, protein_model, dna_model = TARGET / "data", TARGET / "untrained_esm2", TARGET / "untrained_dnabert"
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(HERE / "genomes", data, ignore=shutil.ignore_patterns("README.md"))
    size = ["--sequences-per-file", str(SEQUENCES_PER_FILE)]
    say("1. Reading frames of real genomes (demo/genomes/README.md), split into files of 20 sequences")
    nucpro("dataset", str(data), "--length", "300")
    nucpro("split", str(data), *size)
    say("2. DNA vectors, by an UNTRAINED model: what comes out shows how the job works, not biology")
    make_models(data, protein_model, dna_model)
    nucpro("embed-dna", str(data), "--dna-model", str(dna_model), "--device", "cpu", *size)
    say(
        "3. Protein vectors, also UNTRAINED, merged and validated; some files of an older model are in the way"
    )
    pairs = [pair for pair in split_files(data) if pair.dna_vectors.exists()]
    add_outdated_results(pairs[::4])
    job = [
        str(ROOT / "scripts" / "extract_training_data.py"),
        "--data-dir",
        str(data),
        "--device",
        "cpu",
        *size,
    ]
    python(*job, "--protein-model", str(protein_model))
    say("4. The same again: nothing is left to do")
    python(*job, "--protein-model", str(protein_model))
    say(
        "5. A classifier of these vectors, measured on genomes that it never saw: too few for more than a show"
    )
    classifier = train_demo(data, nucpro)
    say("6. Scores of genomes that gave no row to any file: they show how it is used, not what it is worth")
    contigs = TARGET / "held_out.fna"
    write_held_out(data, split_files(data), contigs)
    encoders = ["--protein-model", str(protein_model), "--dna-model", str(dna_model), "--device", "cpu"]
    nucpro("predict", str(contigs), "--model", str(classifier), *encoders, "--plot")
    say(f"Results (of UNTRAINED models): {data / 'data_merge'}")
    return 0


def make_models(data: Path, protein_model: Path, dna_model: Path) -> None:
    """Write untrained checkpoints of the real widths, in the layout of the real ones."""
    stand_ins.make_checkpoint(protein_model)
    dna_stand_ins.make_dna_checkpoint(dna_model)
    viral = read(data / "viral.1.1.identified_nucleotide.fa")
    dna_stand_ins.train_tokenizer(dna_model, (sequence.decode() for sequence in viral.sequences))


def add_outdated_results(pairs: list[FilePair]) -> None:
    """Write protein and merged files as an older, wider model left them."""
    for pair in pairs:
        ids = read(pair.protein_fasta).ids
        stand_ins.write_old_protein(pair.protein_vectors, ids)
        stand_ins.write_old_merged(pair.merged, ids, pair.label)


def split_files(data: Path) -> list[FilePair]:
    """All split files of a data folder."""
    folder = DataFolder(data)
    found = (folder.pair_of(path) for path in sorted(data.glob("*nucleotide/output_*.fa")))
    return [pair for pair in found if pair is not None]


def nucpro(*arguments: str) -> None:
    """Run a command of nucpro."""
    python("-m", "nucpro", *arguments)


def python(*arguments: str) -> None:
    """Run a program as a user would, and stop with its exit code where it fails."""
    code = subprocess.run([sys.executable, *arguments], check=False).returncode
    if code:
        sys.exit(code)


def say(text: str) -> None:
    """Show a line at once, also between the lines of the programs that are started."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
