"""All steps on a small data folder, on the CPU: from real genomes to validated training files.

Run by ``make demo``. Everything is made below ``build/demo``, by the commands that a user would give. The job
is run twice: the second time it has nothing to do.
"""

from __future__ import annotations

import os
import re
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
SCRIPT = ROOT / "scripts" / "extract_training_data.py"
LOG = "output.txt"
SEQUENCES_PER_FILE = 20


def main() -> int:
    """Make the data folder and run the job on it."""
    data, protein_model, dna_model = TARGET / "data", TARGET / "untrained_esm2", TARGET / "untrained_dnabert"
    contigs = TARGET / "held_out.fna"
    size = ["--sequences-per-file", str(SEQUENCES_PER_FILE)]
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(HERE / "genomes", data, ignore=shutil.ignore_patterns("README.md"))
    say("1. Reading frames of real genomes (demo/genomes/README.md), split into files of 20 records")
    nucpro("dataset", data, "--length", "300", show="^(viral|bacteria): ")
    nucpro("split", data, *size, show="^viral")
    make_models(data, protein_model, dna_model)
    say("2. DNA vectors, by an UNTRAINED model")
    nucpro("embed-dna", data, "--dna-model", dna_model, "--device", "cpu", *size, show="^(Extracted|Valid)")
    say("3. Protein vectors, also UNTRAINED, merged and validated; files of an older model are replaced")
    add_outdated_results([pair for pair in split_files(data) if pair.dna_vectors.exists()][::4])
    job = ["--data-dir", data, "--protein-model", protein_model, "--device", "cpu", *size]
    python(SCRIPT, *job, show="^(Extracted|Merged|Valid)")
    say("4. The same again: nothing is left to do")
    python(SCRIPT, *job, show="^(Done|Valid)")
    say("5. A classifier of these vectors, tested on held-out genomes")
    classifier = train_demo(data, nucpro)
    say("6. Scores of genomes that are not in the data set")
    write_held_out(data, split_files(data), contigs)
    encoders = ["--protein-model", protein_model, "--dna-model", dna_model, "--device", "cpu"]
    nucpro("predict", contigs, "--model", classifier, *encoders, "--plot", show="^[0-9]+ sequences")
    say_where(data)
    return 0


def say_where(data: Path) -> None:
    """End with what was made, where to look first, and what it is not."""
    held_out = TARGET / "held_out_prediction"
    places = (
        ("report", data / "report" / "report.html", "the files and their vectors, in a browser"),
        ("table", held_out / "sequences.tsv", "a score for each of the genomes of step 6"),
        (
            "plot",
            next(iter(sorted(held_out.glob("plots/*.sequence_1.png")))),
            "scores along the first of them",
        ),
        ("training files", data / "data_merge", "ids, rows of 768 + 1280 columns, and labels"),
        ("output", TARGET / LOG, "the complete output of the commands above"),
    )
    say("Results, and where to look first:")
    width = max(len(str(near(path))) for _, path, _ in places)
    for what, path, text in places:
        say(f"   {what:15}{near(path)!s:{width}}  {text}")
    say("The models are UNTRAINED: the results show how nucpro works, and have no biological meaning.")


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


def nucpro(*arguments: str | Path, show: str) -> None:
    """Run a command of nucpro."""
    python("-m", "nucpro", *arguments, show=show)


def python(*arguments: str | Path, show: str) -> None:
    """Run a program as a user would, and stop with its exit code where it fails.

    All that it says goes to the log; shown are the lines that match, and on a terminal the present one.
    """
    words = [str(near(word)) for word in ("python", *arguments)]
    say(f"   $ {' '.join(words).removeprefix('python -m ')}")
    # Matplotlib and torch keep what they find out about the machine here, not in the home and in /tmp.
    caches = {"MPLCONFIGDIR": str(TARGET / "matplotlib"), "TORCHINDUCTOR_CACHE_DIR": str(TARGET / "torch")}
    command = [sys.executable, *map(str, arguments)]
    lines: list[str] = []
    with (
        (TARGET / LOG).open("a") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | caches
        ) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            log.write(line)
            lines.append(line.rstrip())
            if re.search(show, line):
                say(f"   {lines[-1]}")
            elif sys.stdout.isatty():
                pass_by(lines[-1])
    if run.returncode:
        say("\n".join(lines[-20:]))
        sys.exit(run.returncode)


def near(path: str | Path) -> str | Path:
    """Show a path from where the user is, if it lies below."""
    return (
        path.relative_to(Path.cwd()) if isinstance(path, Path) and path.is_relative_to(Path.cwd()) else path
    )


def pass_by(line: str) -> None:
    """Show a line until the next one."""
    print(f"\r\033[K   {line[: shutil.get_terminal_size().columns - 4]}", end="\r", flush=True)


def say(text: str) -> None:
    """Show a line for good, at once."""
    print(f"\033[K{text}" if sys.stdout.isatty() else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
