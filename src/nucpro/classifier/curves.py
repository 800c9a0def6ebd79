"""Pictures of a training: losses by epoch, ROC, precision against recall, and calibration on the test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.classifier.metrics import Scored, curves_of
from nucpro.errors import UsageError
from nucpro.formats.figures import can_draw, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "require_matplotlib"]


def require_matplotlib() -> None:
    """Find out before training whether curves can be drawn.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if not can_draw():
        raise UsageError("curves need matplotlib: pip install 'nucpro[train]', or train with --no-curves")


def draw_curves(
    path: Path, history: Sequence[Mapping[str, Any]], best_epoch: int, test: Scored | None
) -> None:
    """Write one PNG with four panels; those of the test part are empty where it was not measured."""
    draw(path, (9, 7), 120, lambda figure: _fill(figure, history, best_epoch, test))


def _fill(figure: Figure, history: Sequence[Mapping[str, Any]], best_epoch: int, test: Scored | None) -> None:
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
