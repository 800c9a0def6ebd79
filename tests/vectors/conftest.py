"""Fixtures of tests of vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

import random_esm
from vectors.jobs import LENGTHS


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """Ten proteins."""
    path = tmp_path / "proteins.fa"
    proteins = random_esm.proteins(LENGTHS)
    path.write_text("".join(f">p{row} text\n{one.decode()}\n" for row, one in enumerate(proteins)))
    return path
