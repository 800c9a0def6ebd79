"""The part of the demo that trains a classifier on the merged files, and keeps whole genomes from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nucpro.layout import DataFolder


def train_demo(data: Path, nucpro: Callable[..., None]) -> Path:
    """Train on a data folder with the command that a user would give; give the model's folder."""
    how = ["--device", "cpu", "--epochs", "10", "--bootstrap", "200"]
    nucpro("train", data, *how, show="^(Training ended|auroc)")
    return DataFolder(data).model
