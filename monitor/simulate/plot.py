"""The plot of `make simulate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import use
from matplotlib.axes import Axes

from monitor.simulate.rollback import NEVER, Times
from monitor.simulate.scenarios import RULES, Results

COLOURS = {
    "promise": "#1f77b4",
    "previous better": "#2ca02c",
    "rollback": "#d62728",
    "fixed window": "#7f7f7f",
    "SPRT": "#bcbd22",
    "CUSUM": "#9467bd",
}


def draw(results: Results, path: Path) -> None:
    """Write the plot: decisions about a healthy champion, and about a champion that became worse."""
    use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    labels = sorted({n for _, n in results.quiet})
    for (rates, n), times in results.quiet.items():
        if rates != "at the limit" and n == labels[0]:
            _steps(left, times, list(times.first), n)
    left.set(title="healthy champion, rates drawn from Beta", xlabel="labels", ylabel="share of runs with a decision")
    (_, quiet), times = list(results.falls.items())[1]
    _steps(right, times, list(RULES), 1_000)
    right.set(title=f"recall falls to .80 after {quiet:,} healthy labels", xlabel="labels since the fall")
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _steps(axes: Axes, times: Times, names: list[str], most: int) -> None:
    for name in names:
        first = times.first[name]
        decided = np.sort(first[first != NEVER])
        shares = np.arange(1, len(decided) + 1) / len(first)
        axes.step([0, *decided, most], [0, *shares, shares[-1] if len(shares) else 0], label=name, color=COLOURS[name])
