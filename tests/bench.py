"""`make bench` measures `make up` and the pipeline in a fresh clone on free ports, and prints a Markdown table.

The program asserts nothing, because a figure depends on the machine. To help judge the figures, the table also gives
the share of a core that a busy loop got in between, and the time of scikit-learn alone for the same fits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lab.settings import NAMES, ROOT, SETTINGS
from tests.conftest import Lab, free_port, own_processes

# The very fits of the stage `train`, by scikit-learn and joblib alone, in a process of its own.
ALONE = """
import joblib
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from lab import problem
from lab.settings import ROOT
from trainer.evaluate import build
from trainer.folds import plan
from trainer.table import table
from trainer.results import Paths
from trainer.train import dataset
stated = problem.load(ROOT / "params.yaml")
data = table(stated, dataset(stated, Paths(ROOT)))

def fit(name, candidate, fold):
    grid = {f"model__{key}": values for key, values in candidate.grid.items()}
    search = GridSearchCV(build(stated, name, candidate), grid, scoring="neg_log_loss", cv=fold.inner)
    return search.fit(data.x[fold.train], data.y[fold.train]).predict_proba(data.x)

joblib.Parallel(n_jobs=-1)(
    joblib.delayed(fit)(name, candidate, fold)
    for name, candidate in stated.candidates.items() for fold in plan(stated, data)
)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each that is quick enough to repeat")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        lab = clone_lab(Path(folder) / "lab")
        try:
            rows = measure(lab, runs)
        finally:
            make(lab, "down")
    print("\n| what | target | seen |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def measure(lab: Lab, runs: int) -> list[list[str]]:
    """Return the rows of the table, each with its name, target and measurement."""
    cores = [core_share()]
    fresh = seconds(lab, "up")
    memory = resident(lab)
    cores.append(core_share())
    again = [seconds(lab, "up", before="down") for _ in range(runs)]
    first = [seconds(lab, "up", before="reset YES=1") for _ in range(max(1, runs // 2))]
    cores.append(core_share())
    make(lab, "down")
    pairs = [(timed(lab, "dvc", "repro", "--force", "--quiet"), timed(lab, "python", "-c", ALONE)) for _ in range(runs)]
    cores.append(core_share())
    repro, alone = min(a for a, _ in pairs), min(b for _, b in pairs)
    ratio = sorted(a / b for a, b in pairs)
    pss, rss = memory
    return [
        ["`make up`, environment and state in place", "40 s", spread(again)],
        ["`make up`, environment in place, first pipeline included", "120 s", spread(first)],
        ["`make up` in a fresh clone, package cache filled", "180 s", f"{fresh:.0f} s"],
        [
            "resident, all services",
            "1.3 GB",
            f"{pss / 1e9:.2f} GB (shared pages once; {rss / 1e9:.2f} GB counted twice)",
        ],
        ["`dvc repro`, everything anew", "60 s", spread([a for a, _ in pairs])],
        ["scikit-learn alone, the same fits", "", spread([b for _, b in pairs])],
        ["ratio of the two", "2", f"{repro / alone:.2f} (pairs: {ratio[0]:.2f} to {ratio[-1]:.2f})"],
        ["core that a busy loop got meanwhile", "", ", ".join(f"{share:.0%}" for share in cores)],
    ]


def clone_lab(root: Path) -> Lab:
    """Clone the last commit, and give the clone ports of its own."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True, timeout=120)
    ours = {NAMES, *(setting.name for setting in SETTINGS)}
    ports_in_use: set[int] = set()
    ports = {s.name: str(free_port(ports_in_use)) for s in SETTINGS if s.port}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    env |= {
        **ports,
        "ENGINE": "embedded",
        "START_SECONDS": "1200",
        NAMES: " ".join(ours),
        "PATH": f"{root}/.venv/bin{os.pathsep}{env['PATH']}",
    }
    return Lab(root, env)


def make(lab: Lab, *words: str) -> None:
    process = lab.run("make", *words, f"PYTHON={sys.executable}")
    if process.returncode:
        sys.exit(f"make {' '.join(words)} failed:\n{process.stdout[-2000:]}{process.stderr[-2000:]}")


def seconds(lab: Lab, *words: str, before: str = "") -> float:
    if before:
        make(lab, *before.split())
    start = time.monotonic()
    make(lab, *words)
    return say(f"make {' '.join(words)} after {before or 'git clone'}", time.monotonic() - start)


def timed(lab: Lab, *words: str) -> float:
    start = time.monotonic()
    process = lab.run(str(lab.root / ".venv" / "bin" / words[0]), *words[1:])
    if process.returncode:
        sys.exit(f"{words[0]} failed:\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    return say(words[0] + " " + words[1], time.monotonic() - start)


def resident(lab: Lab) -> tuple[int, int]:
    """Return the proportional and the resident set size of all the lab's processes, in bytes."""
    processes: list[psutil.Process] = own_processes(lab)
    return sum(p.memory_full_info().pss for p in processes), sum(p.memory_info().rss for p in processes)


def core_share(spin: float = 3.0) -> float:
    """Return the share of `spin` seconds in which a busy loop ran, without its pauses of over a millisecond.

    A virtual machine's pauses do not show in the process's own processor time.
    """
    start = last = time.perf_counter()
    paused = 0.0
    while last - start < spin:
        now = time.perf_counter()
        paused += now - last if now - last > 0.001 else 0
        last = now
    return 1 - paused / (last - start)


def spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f} s" if len(values) == 1 else f"{low:.0f} to {high:.0f} s ({len(values)} runs)"


def say(what: str, value: float) -> float:
    print(f"{value:6.1f} s  {what}", flush=True)
    return value


if __name__ == "__main__":
    main()
