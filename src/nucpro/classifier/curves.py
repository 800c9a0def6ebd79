"""Pictures of a training: losses by epoch, ROC, precision against recall, and calibration on the test part."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nucpro.classifier.metrics import Scored, curves_of
from nucpro.errors import UsageError
from nucpro.store import write_bytes

__all__ = ["draw_curves", "require_matplotlib"]


def require_matplotlib() -> None:
    """Find out before training whether curves can be drawn.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("curves need matplotlib: pip install 'nucpro[train]', or train with --no-curves")


def draw_curves(
    path: Path, history: Sequence[Mapping[str, Any]], best_epoch: int, test: Scored | None
) -> None:
    """Write one PNG with four panels; those of the test part are empty where it was not measured."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra train

    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(2, 2).flat
    losses, *others = panels
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["train_loss"] for entry in history], label="training (with dropout)")
    losses.plot(epochs, [entry["loss"] for entry in history], label="validation")
    losses.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    losses.legend()
    titles = (
        ("false_positive_rate", "recall", "false positive rate", "recall (true positive rate)"),
        ("recall", "precision", "recall", "precision"),
        ("bin_score", "bin_viral", "mean probability of virus", "share of viral rows"),
    )
    points = {} if test is None else curves_of(test)
    for panel, (across, up, across_title, up_title) in zip(others, titles, strict=True):
        if points:
            panel.plot(points[across], points[up], marker="." if across == "bin_score" else None)
        panel.set(xlabel=f"{across_title}, test", ylabel=up_title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())
