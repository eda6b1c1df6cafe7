"""The plots of a candidate, from its out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from trainer.metrics import Floats, Ints
from trainer.results import Result

matplotlib.use("Agg")


def draw_all(folder: Path, result: Result, truth: Ints, oof: Floats) -> None:
    """Write roc.png, precision_recall.png, calibration.png and confusion.png.

    `truth` has shape (rows,), `oof` (repeats, rows); the repeats are pooled. Rows that were in no test are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = ~np.isnan(oof[0])
    truth, oof = truth[known], oof[:, known]
    y, p = np.tile(truth, len(oof)), oof.ravel()
    name, threshold = result.recipe.candidate, result.threshold
    draw: dict[str, Callable[[object], object]] = {
        "roc": lambda ax: RocCurveDisplay.from_predictions(y, p, name=name, ax=ax),
        "precision_recall": lambda ax: PrecisionRecallDisplay.from_predictions(y, p, name=name, ax=ax),
        "calibration": lambda ax: CalibrationDisplay.from_predictions(y, p, n_bins=10, name=name, ax=ax),
        "confusion": lambda ax: ConfusionMatrixDisplay.from_predictions(
            truth, oof.mean(axis=0) >= threshold, ax=ax, colorbar=False
        ),
    }
    for title, plot in draw.items():
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.subplots()
        plot(axes)
        axes.set_title(f"{name}: {title.replace('_', ' ')}, out of fold")
        figure.savefig(folder / f"{title}.png", dpi=100)
