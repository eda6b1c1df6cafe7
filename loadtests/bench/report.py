"""Write the figures as a Markdown page and a chart."""

from __future__ import annotations

import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from lab.settings import ROOT
from loadtests.bench.cases import Case
from loadtests.bench.process import Memory
from loadtests.bench.wrk import CONNECTIONS, RUN_SECONDS, Figures

PAGE = ROOT / "docs" / "serving.md"
CHART = ROOT / "docs" / "serving.png"


@dataclass(frozen=True)
class Measured:
    """One case in one round."""

    figures: Figures
    memory: Memory


# The targets: how many times the requests of another server this API should answer.
LEAST = (
    ("mlflow", "MLflow's scoring server", 25),
    ("mlflow-now", "the same, no 40 ms wait", 25),
    ("bentoml", "BentoML", 8),
    ("flask", "Flask + gunicorn + scikit-learn", 4),
)
Rounds = dict[str, list[Measured]]

TEMPLATE = Path(__file__).parent / "page.md"


def table(cases: list[Case], measured: Rounds) -> str:
    """The table as Markdown."""
    lines = [
        "| server | requests/s | p50 ms | p99 ms | MB a worker | MB in all | ours is |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        rounds = measured[case.key]
        rate = _column(rounds, lambda each: each.figures.requests_a_second)
        text = f"{_middle(rate):,.0f} ({min(rate):,.0f}–{max(rate):,.0f})"
        if case.rows > 1:
            text += f"; {_middle(rate) * case.rows:,.0f} rows/s"
        cells = [
            case.title,
            text,
            f"{_median(rounds, lambda each: each.figures.p50_ms):.2f}",
            f"{_median(rounds, lambda each: each.figures.p99_ms):.2f}",
            f"{_median(rounds, lambda each: each.memory.worker):.0f}"
            f" ({_median(rounds, lambda each: each.memory.worker_resident):.0f})",
            f"{_median(rounds, lambda each: each.memory.whole):.0f}",
            "" if case.rows > 1 or case.key == "ours" or not measured["ours"] else _times(ratios(measured, case.key)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets(measured: Rounds) -> str:
    """The targets of the project with the measured figures, as Markdown."""
    rows = [("figure", "target", "measured", ""), ("---", "---", "---", "---")]
    for key, name, least in LEAST:
        quotients = ratios(measured, key)
        rows.append(
            (f"this API against {name}", f"{least} times", _times(quotients), _verdict(_middle(quotients) >= least))
        )
    share = _middle(ratios(measured, "empty"))
    rows.append(("this API against the empty handler", "0.6", f"{share:.2f}", _verdict(share >= 0.6)))
    share = 1 / _middle(ratios(measured, "knn"))
    rows.append(("k-nearest neighbours against logistic regression", "0.5", f"{share:.2f}", _verdict(share >= 0.5)))
    rate = _median(measured["batch"], lambda each: each.figures.requests_a_second) * 1000
    rows.append(("rows/s in batches of 1,000", "100,000", f"{rate:,.0f}", _verdict(rate >= 100_000)))
    worker = _median(measured["ours"], lambda each: each.memory.worker)
    resident = _median(measured["ours"], lambda each: each.memory.worker_resident)
    rows.append(("MB a worker", "120", f"{worker:.0f} ({resident:.0f} resident)", _verdict(resident <= 120)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def ratios(measured: Rounds, key: str) -> list[float]:
    """This API's requests/s divided by those of the case `key`, for each round."""
    pairs = zip(measured["ours"], measured[key], strict=False)
    return [ours.figures.requests_a_second / other.figures.requests_a_second for ours, other in pairs]


def write(cases: list[Case], measured: Rounds, rounds: int, seconds: float) -> None:
    """Write docs/serving.md and docs/serving.png."""
    _draw(cases, measured)
    PAGE.write_text(
        TEMPLATE.read_text().format(
            table=table(cases, measured),
            targets=targets(measured),
            machine=f"{psutil.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
            f"Python {platform.python_version()}",
            versions="Versions: " + ", ".join(_versions()),
            rounds=rounds,
            seconds=seconds,
            connections=CONNECTIONS,
            run=RUN_SECONDS,
        )
    )
    print(f"\nwritten: {PAGE.relative_to(ROOT)}, {CHART.relative_to(ROOT)}")


def _draw(cases: list[Case], measured: Rounds) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    single = [case for case in cases if case.rows == 1]
    rates = {case.key: _column(measured[case.key], lambda each: each.figures.requests_a_second) for case in single}
    single.sort(key=lambda case: _middle(rates[case.key]))
    medians = [_middle(rates[case.key]) for case in single]
    errors = [
        [middle - min(rates[case.key]) for case, middle in zip(single, medians, strict=True)],
        [max(rates[case.key]) - middle for case, middle in zip(single, medians, strict=True)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(single) + 1.2), layout="constrained")
    colours = ["#1f5fa8" if case.title.startswith("this API") else "#9aa5b1" for case in single]
    bars = axes.barh([case.title for case in single], medians, xerr=errors, color=colours, capsize=2)
    axes.bar_label(bars, labels=[f"{middle:,.0f}" for middle in medians], padding=6)
    axes.set_xlabel(f"requests/s, {CONNECTIONS} connections (median, least, greatest)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(CHART, dpi=120, metadata={"Software": ""})
    pyplot.close(figure)


def _versions() -> list[str]:
    """The versions of the servers: those of the lab as installed, those of the others from the lock file."""
    versions = dict(re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements" / "bench.txt").read_text(), re.MULTILINE))
    ours = [f"{name} {version(name)}" for name in ("granian", "flask", "onnxruntime", "scikit-learn", "mlflow")]
    return ours + [
        f"{name} {versions[name]}" for name in ("bentoml", "fastapi", "gunicorn", "uvicorn") if name in versions
    ]


def _column(rounds: list[Measured], read: Callable[[Measured], float]) -> list[float]:
    return [read(each) for each in rounds]


def _median(rounds: list[Measured], read: Callable[[Measured], float]) -> float:
    return _middle(_column(rounds, read))


def _middle(values: list[float]) -> float:
    return statistics.median(values)


def _times(values: list[float]) -> str:
    middle = _middle(values)
    text = f"{middle:.1f}" if middle >= 2 else f"{middle:.2f}"
    return f"{text} times" + (f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else "")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"
