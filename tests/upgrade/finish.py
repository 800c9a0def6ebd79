"""Makes the finished work that a release adds to ``tests/upgrade/finished``: python tests/upgrade/finish.py VERSION.

Everything is made by the commands of this version from the unfinished work in ``begun``, with untrained models: small
files of each format that later versions must read (``test_finished.py``).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from nucpro.cli import main

HERE = Path(__file__).parent
BEGUN = HERE / "begun"
RECORDS = (".extraction_checkpoint.json", ".extraction_selection.json")
FORMS = (".pt", ".npz", ".parquet", ".safetensors")
EXPORTS = ("npz", "parquet", "safetensors")
FASTA = "data/viral.1.1.identified_protein/output_1.fa"


def run(*words: object) -> None:
    code = main([str(word) for word in words])
    if code:
        raise SystemExit(f"nucpro {' '.join(map(str, words))}: exit code {code}")


def finish(work: Path, target: Path) -> None:
    """Finish a copy of ``begun``, and keep what is small."""
    data, device = work / "data", ("--device", "cpu")
    protein = ("--protein-model", work / "model", *device)
    run("extract", data, *protein, "--sequences-per-file", 4, "--host-selection", "all", "--no-report")
    (target / "data").mkdir(parents=True)
    for name in RECORDS:
        shutil.copy(data / name, target / "data")
    (target / "embedded").mkdir()
    for form in FORMS:
        run("embed", work / FASTA, "-o", target / "embedded" / f"vectors{form}", *protein)
    run("embed", work / FASTA, "--per-residue", "-o", target / "residues", *protein)
    for form in EXPORTS:
        run("export", data, "--to", form, "-o", target / "exported" / form, "--sequences-per-file", 4)
    run(
        "train",
        data,
        "-o",
        target / "trained",
        *device,
        "--columns",
        "protein",
        "--epochs",
        2,
        "--split-by",
        "row",
        "--no-curves",
    )
    for lock in target.rglob("*.lock"):
        lock.unlink()


if __name__ == "__main__":
    # Some records name the folder.
    genomes = Path(tempfile.gettempdir(), "genomes")
    shutil.copytree(BEGUN, genomes)
    finish(genomes, genomes / "finished")
    shutil.move(genomes / "finished", HERE / "finished" / sys.argv[1])
    shutil.rmtree(genomes)
