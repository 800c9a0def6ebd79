"""Every example of docs/export.md runs, and gives what the merged files hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from folders import Frame, add_dna, add_source, arguments
from nucpro.cli import main

DOC = Path(__file__).resolve().parents[2] / "docs" / "export.md"

CHECKS = """
assert len(rows) == 8 and rows[0]["vector"].shape == (784,)
assert frame.height == 4 and frame["vector"].to_numpy().shape == (4, 784)
assert sorted(table) == [("bacteria", 4), ("viral", 4)]
assert vectors.shape == (4, 784) and len(ids) == 4 and labels.tolist() == [1] * 4
assert classifier.coef_.shape == (1, 784)
"""


def test_all_examples_run(tmp_path: Path, frames: dict[str, list[Frame]], model: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("viral.1.1", "bacteria.1.1"):
        add_dna(add_source(data, name, frames[name][:4]), [1])
    assert main(["extract", *arguments(data, model)]) == 0
    for kind in ("parquet", "safetensors", "npz"):
        assert main(["export", str(data), "--to", kind, "--sequences-per-file", "4"]) == 0
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, CHECKS])],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
