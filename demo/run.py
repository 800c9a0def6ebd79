"""The main job on a small data folder, on the CPU, from real genomes to validated training files.

Run by ``make demo``. Everything is made below ``build/demo``; the script that a user would run is started
as a user would start it, twice: the second time it has nothing to do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import stand_ins

from nucpro.dataset import DatasetOptions, build
from nucpro.fasta import count, read
from nucpro.layout import HOST_CATEGORIES, VIRAL, DataFolder, FilePair, Source
from nucpro.selection import draw_hosts
from nucpro.splitting import split_source

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = ROOT / "build" / "demo"
SEQUENCES_PER_FILE = 20


def main() -> int:
    """Make the data folder and run the job on it."""
    data, model = TARGET / "data", TARGET / "untrained_esm2_1280"
    shutil.rmtree(TARGET, ignore_errors=True)
    say("1. Reading frames of real genomes (see demo/genomes/README.md), split into files of 20 sequences")
    shutil.copytree(HERE / "genomes", data, ignore=shutil.ignore_patterns("README.md"))
    build(data, DatasetOptions(length=300))
    sources = DataFolder(data).walk_sources()
    for source in sources:
        split_source(source, SEQUENCES_PER_FILE)
    say(
        "2. Stand-ins: DNA vectors that are random numbers, protein and merged files of an older model, and an"
    )
    say("   UNTRAINED protein model of the real width. What comes out shows how the job works, not biology.")
    add_stand_ins(sources)
    stand_ins.make_checkpoint(model)
    command = [sys.executable, str(ROOT / "scripts" / "extract_training_data.py"), "--data-dir", str(data)]
    command += [
        "--protein-model",
        str(model),
        "--device",
        "cpu",
        "--sequences-per-file",
        str(SEQUENCES_PER_FILE),
    ]
    for title in ("3. The job", "4. The same again: nothing is left to do"):
        say(title)
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    say(f"Results (from an UNTRAINED model): {data / 'data_merge'}")
    return 0


def add_stand_ins(sources: list[Source]) -> None:
    """Give a balanced choice of full files their DNA vectors, and some of them outdated results."""
    full = [pair for source in sources for pair in full_pairs(source)]
    viral = [pair for pair in full if pair.category == VIRAL]
    hosts = draw_hosts([pair for pair in full if pair.category in HOST_CATEGORIES], len(viral))
    for position, pair in enumerate([*viral, *hosts]):
        ids = read(pair.nucleotide_fasta).ids
        stand_ins.write_dna_stand_in(pair.dna_vectors, ids)
        if position % 4 == 0:
            stand_ins.write_old_protein(pair.protein_vectors, ids)
            stand_ins.write_old_merged(pair.merged, ids, pair.label)


def full_pairs(source: Source) -> list[FilePair]:
    """Split files of a source that hold the full number of records."""
    records = count(source.nucleotide_fasta)
    return [source.pair(number) for number in range(1, records // SEQUENCES_PER_FILE + 1)]


def say(text: str) -> None:
    """Show a line at once, also between the lines of the programs that are started."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
