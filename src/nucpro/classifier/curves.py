"""Figure of a training: losses by epoch, and on the test part ROC, precision and recall, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.classifier.card import CURVES_NAMES
from nucpro.classifier.metrics import Scored, curves_of
from nucpro.errors import UsageError
from nucpro.formats.figures import CLASS_COLOURS, LINE_COLOURS, REFERENCE, can_draw, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "require_matplotlib"]

_SIZE = (10, 8)
_LOSSES = ("training (with dropout)", "validation")
_AXES = (
    ("false positive rate", "recall (true positive rate)"),
    ("recall", "precision"),
    ("mean probability of virus", "share of viral rows"),
)


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
    folder: Path, history: Sequence[Mapping[str, Any]], best_epoch: int, test: Scored | None
) -> None:
    """Write the figure in each format: the losses, and if the test part was measured, three panels of it."""

    def fill(figure: Figure) -> None:
        if test is None:
            _draw_losses(figure.subplots(), history, best_epoch)
            return
        losses, *panels = figure.subplots(2, 2).flat
        _draw_losses(losses, history, best_epoch)
        _draw_test(panels, test)

    for name in CURVES_NAMES:
        draw(folder / name, _SIZE, fill)


def _draw_losses(axes: Axes, history: Sequence[Mapping[str, Any]], best_epoch: int) -> None:
    epochs = [entry["epoch"] for entry in history]
    marker = "." if len(epochs) < 20 else None  # a line of a single epoch would be invisible
    for name, label, colour in zip(("train_loss", "loss"), _LOSSES, LINE_COLOURS, strict=True):
        axes.plot(epochs, [entry[name] for entry in history], color=colour, marker=marker, label=label)
    axes.axvline(best_epoch, **REFERENCE, label=f"best epoch: {best_epoch}")
    best = next(entry["loss"] for entry in history if entry["epoch"] == best_epoch)
    axes.set(
        xlabel="epoch", ylabel="cross-entropy", title=f"Loss, validation: {best:.3f} in epoch {best_epoch}"
    )
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.legend(loc="best", fontsize="small", frameon=False)


def _draw_test(panels: Sequence[Axes], test: Scored) -> None:
    """Draw the curves of the test part with their reference lines, and the number of rows per bin."""
    roc, precision_recall, calibration = panels
    points, found = curves_of(test), test.metrics()
    viral, share = int(test.labels.sum()), float(test.labels.mean())
    # Curves reach 0 and 1, where markers and lines would be cut in half.
    style: dict[str, Any] = {
        "clip_on": False,
        "zorder": 3,
        "color": CLASS_COLOURS["viral"],
        "label": f"classifier ({viral:,} viral, {len(test.labels) - viral:,} host rows)",
    }
    roc.plot([0, 1], [0, 1], **REFERENCE, label="chance")
    roc.plot([0, *points["false_positive_rate"]], [0, *points["recall"]], **style)
    precision_recall.axhline(share, **REFERENCE, label=f"prevalence: {share:.0%} viral rows")
    precision_recall.plot(points["recall"], points["precision"], **style)
    calibration.plot([0, 1], [0, 1], **REFERENCE, label="perfect calibration")
    calibration.plot(points["bin_score"], points["bin_viral"], marker=".", **style)
    for score, height, rows in zip(points["bin_score"], points["bin_viral"], points["bin_rows"], strict=True):
        calibration.annotate(
            f"{int(rows):,}",
            (score, height),
            (0, 5),
            textcoords="offset points",
            fontsize="x-small",
            ha="center",
        )
    titles = (
        f"ROC, test: AUROC {found['auroc']:.3f}",
        f"Precision and recall, test: AUPRC {found['auprc']:.3f}",
        f"Calibration, test: error {found['calibration_error']:.3f} (rows per bin)",
    )
    for panel, title, (across, up) in zip(panels, titles, _AXES, strict=True):
        panel.set(xlabel=across, ylabel=up, title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        panel.legend(loc="best", fontsize="small", frameon=False)
    calibration.set_ylim(top=1.1)  # space for the counts
