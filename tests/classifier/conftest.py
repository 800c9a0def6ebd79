"""Merged files that the tests of the classifier share."""

from __future__ import annotations

from pathlib import Path

import pytest
from merged_folders import make_folder

from folders import Frame, copied


@pytest.fixture(scope="session")
def merged_once(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]]) -> Path:
    """A data folder with merged files of 231 real frames of 9 genomes; nothing changes it."""
    data = tmp_path_factory.mktemp("merged") / "data"
    make_folder(data, {name: found for name, found in frames.items() if found})
    return data


@pytest.fixture
def merged(tmp_path: Path, merged_once: Path) -> Path:
    """A copy that a test may change."""
    return copied(merged_once, tmp_path / "data")
