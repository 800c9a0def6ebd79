"""Tries an installed nucpro, far from its source tree: one file of proteins to vectors, and what each extra brings.

    python tests/packaging/installed.py

Run by the release workflow in the environment that pip made from the wheel. It ends with an error where a
command fails, or where an extra that is installed does not import.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
import stand_ins

PARTS = {
    "ray": "nucpro.execution.ray.engine",
    "sklearn": "nucpro.report.geometry",
    "matplotlib": "nucpro.formats.figures",
    "pyarrow": "nucpro.export.formats",
    "pandas": "nucpro.api",
}
"""A package that an extra brings, and the module that needs it."""


def main() -> None:
    print(
        f"nucpro {distribution('nucpro').version}, Python {sys.version.split()[0]}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        model, fasta, output = (Path(folder) / name for name in ("model", "proteins.fa", "vectors.pt"))
        stand_ins.make_checkpoint(model, width=16, layers=2, heads=2, feed_forward=64)
        fasta.write_text(">a\nMKTAYIAKQR\n>b\nMLELLPTAVEGVSQAQITGRPEWIWLALGTALMGLGTLYFLVKGMG\n")
        options = ["--protein-model", str(model), "--device", "cpu"]
        subprocess.run(
            [sys.executable, "-m", "nucpro", "embed", str(fasta), "-o", str(output), *options], check=True
        )
        vectors = torch.load(output, weights_only=True)
        assert vectors["proteins"] == ["a", "b"], vectors["proteins"]
    for package, module in PARTS.items():
        if find_spec(package):
            importlib.import_module(module)
            print(f"{package}: {module} imports")


if __name__ == "__main__":
    main()
