"""Pictures of a training: losses by epoch, ROC, precision against recall, and calibration on the test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.classifier.metrics import Scored, curves_of
from nucpro.errors import UsageError
from nucpro.formats.figures import can_draw, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "require_matplotlib"]


def require_matplotlib() -> None:
    """Check before training whether curves can be drawn.

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
    draw(path, (10, 8), 300, lambda figure: _fill(figure, history, best_epoch, test))


def _fill(figure: Figure, history: Sequence[Mapping[str, Any]], best_epoch: int, test: Scored | None) -> None:
    losses, *panels = figure.subplots(2, 2).flat
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["train_loss"] for entry in history], label="training (with dropout)")
    losses.plot(epochs, [entry["loss"] for entry in history], label="validation")
    losses.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
    losses.set(xlabel="epoch", ylabel="cross-entropy", title="Loss")
    losses.legend(loc="best", fontsize="small")
    titles = ("ROC", "Precision and recall", "Calibration")
    axes = (
        ("false positive rate", "recall (true positive rate)"),
        ("recall", "precision"),
        ("mean probability of virus", "share of viral rows"),
    )
    for panel, title, (across, up) in zip(panels, titles, axes, strict=True):
        panel.set(xlabel=across, ylabel=up, title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if test is not None:
        _fill_test(panels, test)


def _fill_test(panels: Sequence[Axes], test: Scored) -> None:
    """Draw the test part: curves with what a model without knowledge would have, and counts of the bins."""
    roc, precision_recall, calibration = panels
    points, found = curves_of(test), test.metrics()
    chance: dict[str, Any] = {"color": "grey", "linestyle": ":", "linewidth": 1}
    # Curves reach 0 and 1, where markers and lines would be cut in half.
    whole: dict[str, Any] = {"clip_on": False, "zorder": 3}
    roc.plot([0, 1], [0, 1], **chance, label="chance")
    roc.plot(points["false_positive_rate"], points["recall"], **whole)
    roc.set_title(f"ROC, test: AUROC {found['auroc']:.3f}")
    share = float(test.labels.mean())
    precision_recall.axhline(share, **chance, label=f"viral rows: {100 * share:.0f}%")
    precision_recall.plot(points["recall"], points["precision"], **whole)
    precision_recall.set_title(f"Precision and recall, test: AUPRC {found['auprc']:.3f}")
    calibration.plot([0, 1], [0, 1], **chance, label="calibrated")
    calibration.plot(points["bin_score"], points["bin_viral"], marker=".", **whole)
    for score, viral, rows in zip(points["bin_score"], points["bin_viral"], points["bin_rows"], strict=True):
        calibration.annotate(
            f"{int(rows)}",
            (score, viral),
            (0, 5),
            textcoords="offset points",
            fontsize="xx-small",
            ha="center",
        )
    calibration.set_ylim(top=1.1)  # space for the counts
    calibration.set_title(f"Calibration, test: error {found['calibration_error']:.3f} (rows per bin)")
    for panel in panels:
        panel.legend(loc="lower right", fontsize="small")
