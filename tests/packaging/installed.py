"""Tries an installed nucpro, far from its source tree: genomes to merged vectors, and what each extra brings.

    python tests/packaging/installed.py

Run by the release workflow, and by `test_extras.py`, in an environment that pip made from the wheel. It ends with an
error where a command fails. A command that needs an extra is run where that extra is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import torch

DEMO = Path(__file__).resolve().parents[2] / "demo"
sys.path.insert(0, str(DEMO))
import dna_stand_ins
import stand_ins

FASTA = b">a\nMKTAYIAKQR\n>b\nMLELLPTAVEGVSQAQITGRPEWIWLALGTALMGLGTLYFLVKGMG\n"
TRAIN = ("train", "data", "-o", "model", "--device", "cpu", "--epochs", "2", "--split-by", "row", "--replace")
TABLES = """
import nucpro
print(nucpro.predict("contigs.fa", "model", protein_model="esm", dna_model="dna", device="cpu"))
"""


def nucpro(*words: str) -> None:
    """Run a command, as a user does in the folder of the files."""
    print("nucpro", *words, flush=True)
    subprocess.run([sys.executable, "-m", "nucpro", *words], check=True, stdout=sys.stderr)


def make_data() -> None:
    """Untrained models, and a data folder with merged vectors of a few real genomes."""
    stand_ins.make_checkpoint(Path("esm"), width=16, layers=1, heads=2, feed_forward=64)
    Path("data").mkdir()
    for pattern in ("viral*", "bacteria*"):
        for path in (DEMO / "genomes").glob(pattern):
            shutil.copy(path, "data")
    nucpro("dataset", "data", "--length", "300", "--processes", "1")
    frames = [
        line
        for line in Path("data/viral.1.1.identified_nucleotide.fa").read_text().split("\n")
        if line[:1] != ">"
    ]
    dna_stand_ins.make_dna_checkpoint(Path("dna"), layers=1, feed_forward_width=64)
    dna_stand_ins.train_tokenizer(Path("dna"), iter(frames[:200]))
    nucpro("embed-dna", "data", "--dna-model", "dna", "--device", "cpu", "--sequences-per-file", "20")
    nucpro("extract", "data", "--protein-model", "esm", "--device", "cpu", "--no-report")


def embed(*options: str) -> None:
    """Vectors of two proteins, read as the documentation says."""
    Path("vectors.pt").unlink(missing_ok=True)
    Path("proteins.fa").write_bytes(FASTA)
    nucpro(
        "embed",
        "proteins.fa",
        "-o",
        "vectors.pt",
        "--protein-model",
        "esm",
        "--device",
        "cpu",
        "--replace",
        *options,
    )
    vectors = torch.load("vectors.pt", weights_only=True)
    assert vectors["proteins"] == ["a", "b"], vectors["proteins"]


def train() -> None:
    nucpro(*TRAIN)


def embed_zstd() -> None:
    import backports.zstd

    Path("proteins.fa.zst").write_bytes(backports.zstd.compress(FASTA))
    nucpro("embed", "proteins.fa.zst", "-o", "zstd.pt", "--protein-model", "esm", "--device", "cpu")


def embed_hdf5() -> None:
    import h5py

    words = ("--per-residue", "-o", "residues.h5", "--protein-model", "esm", "--device", "cpu")
    nucpro("embed", "proteins.fa", *words)
    with h5py.File("residues.h5") as file:
        assert file["a"].shape == (10, 16), file["a"].shape


def predict_tables() -> None:
    nucpro(*TRAIN, "--no-curves")
    shutil.copy("data/viral.1.1.identified_nucleotide.fa", "contigs.fa")
    subprocess.run([sys.executable, "-c", TABLES], check=True)


PARTS: dict[str, Callable[[], None]] = {
    "ray": lambda: embed("--engine", "ray"),
    "sklearn": lambda: nucpro("report", "data"),
    "umap": lambda: nucpro("report", "data", "--layout", "umap"),
    "matplotlib": train,
    "pyarrow": lambda: nucpro("export", "data", "--to", "parquet", "-o", "exported"),
    "pandas": predict_tables,
    "h5py": embed_hdf5,
    "backports.zstd": embed_zstd,
}
"""A package that an extra brings, and a command that needs it."""


def is_installed(package: str) -> bool:
    return all(find_spec(package.rsplit(".", cut)[0]) for cut in range(package.count("."), -1, -1))


def main() -> None:
    version = distribution("nucpro").version
    print(f"nucpro {version}, Python {sys.version.split()[0]}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        nucpro("--version")
        make_data()
        nucpro("doctor", "--protein-model", "esm", "--dna-model", "dna", "--device", "cpu")
        embed()
        for package, part in PARTS.items():
            if is_installed(package):
                part()
                print(f"{package}: works", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
