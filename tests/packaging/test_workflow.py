"""The Snakemake workflow: from genomes to a classifier, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from folders import copied


def snakemake(root: Path, folder: Path, *words: str, **config: object) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder, with the programs of this environment."""
    here = Path(sys.executable).parent
    variables = {
        **os.environ,
        "PATH": f"{here}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    values = [f"{name}={value}" for name, value in config.items()]
    command = [
        "--snakefile",
        str(root / "workflow" / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        "1",
    ]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *command, *words, "--config", *values],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_workflow_goes_from_genomes_to_a_classifier_once(
    root: Path, model: Path, dna_model: Path, tmp_path: Path
) -> None:
    config = {
        "genomes": copied(root / "demo" / "genomes", tmp_path / "genomes"),
        "sequences_per_file": 20,
        "protein_model": model,
        "dna_model": dna_model,
        "device": "cpu",
        "train_options": "--epochs 2 --no-curves",
    }
    done = snakemake(root, tmp_path, **config)
    assert done.returncode == 0, done.stderr
    assert "Validation passed: 14 files, 280 sequences" in done.stdout + done.stderr
    assert (tmp_path / "data" / "model" / "model.safetensors").exists()
    again = snakemake(root, tmp_path, **config)
    assert "Nothing to be done" in again.stderr


def test_without_a_folder_of_genomes_they_are_downloaded(root: Path, tmp_path: Path) -> None:
    done = snakemake(root, tmp_path, "--dry-run", "--printshellcmds")
    assert done.returncode == 0, done.stderr
    assert "nucpro download data" in done.stdout
    assert "nucpro extract data --protein-model Synthyra/FastESM2_650 --device cuda" in done.stdout


def test_an_empty_folder_of_genomes_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "genomes").mkdir()
    done = snakemake(root, tmp_path, "--dry-run", genomes="genomes")
    assert done.returncode == 1
    assert "genomes: genomes holds no *.genomic.fna.gz and *.genomic.gbff.gz" in done.stdout
