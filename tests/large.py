"""`make bench-large`: `make new` on a million rows, training on 100,000, and serving a table of 30 features.

Prints a Markdown table. Training is compared with scikit-learn alone for the same fits, and serving with the lab's own
table of nine numbers, in turns, because a machine may be slower in one minute than in the next.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import msgspec
import psutil

from lab import http, problem
from lab.card import MODEL_FILE
from lab.errors import LabError, run
from lab.record import from_text
from lab.settings import ROOT, STATE
from loadtests.bench import process, wrk
from tests.bench import ALONE
from trainer import ingest, validate
from trainer.model_card import make_card
from trainer.results import Paths, read_results

NAME = "bench-large"
FOLDER = ROOT / "tables" / NAME


def number(place: int, decimals: int = 3) -> str:
    """The SQL of a number from 0 to 100 that depends on the row and the place of its column only."""
    return f"round((hash(range * 1000 + {place}) % 1000000) / 10000.0, {decimals})"


def word(place: int) -> str:
    colours = "['red', 'green', 'blue', 'white', 'black', 'violet']"
    return f"{colours}[1 + (hash(range * 1000 + 500 + {place}) % 6)::INT]"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench-large", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args(words).runs
    wrk.check()
    folder = STATE / "load" / "large"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        rows = [*draft(folder, runs), *training(folder), *serving(folder, runs)]
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    print("\n| what | target | seen |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def draft(folder: Path, runs: int) -> list[list[str]]:
    """Time and memory of `make new` on 1,000,000 rows and 20 columns of numbers, words and dates."""
    cells = ["range AS row_id", *(f"{number(n)} AS r{n}" for n in range(8))]
    cells += [f"{number(10 + n, 0)}::INT AS i{n}" for n in range(5)] + [f"{word(n)} AS w{n}" for n in range(4)]
    cells += ["DATE '2024-01-01' + (range // 3000)::INT AS day", f"{number(20)} < 20 + r0 / 5 AS target"]
    source = write(folder / "large.csv", cells, 1_000_000)
    figures = [measured(sys.executable, "-m", "trainer", "new", *options(source)) for _ in range(runs)]
    seconds, memory = [each[0] for each in figures], max(each[1] for each in figures)
    return [
        [
            "`make new`, 1,000,000 rows × 20 columns",
            "10 s",
            f"{min(seconds):.1f} s (of {runs}: to {max(seconds):.1f} s)",
        ],
        ["its memory", "1 GB", f"{memory / 1e9:.2f} GB"],
    ]


def training(folder: Path) -> list[list[str]]:
    """Time and memory of the stage `train` on 100,000 rows and 20 features, and of scikit-learn alone."""
    score = " + ".join(f"x{n} * {(-1) ** n * (n + 1)}" for n in range(20))
    cells = [f"{number(n)} AS x{n}" for n in range(20)]
    source = write(folder / "wide.csv", [*cells, f"{score} + x0 * x1 / 9 + {number(30)} * 9 > 450 AS target"], 100_000)
    params = prepare(source)
    lab, memory = measured(sys.executable, "-m", "trainer", "train", "--params", str(params))
    code = ALONE.replace("Paths(ROOT)", f'Paths(ROOT / "tables/{NAME}")')
    alone, _ = measured(sys.executable, "-c", code.replace('"params.yaml"', f'"tables/{NAME}/params.yaml"'))
    return [
        [
            "training, 100,000 rows × 20 features",
            "1.5 × scikit-learn",
            f"{lab / alone:.2f} ({lab:.0f} s, {alone:.0f} s)",
        ],
        ["its memory", "2 GB", f"{memory / 1e9:.2f} GB"],
    ]


def serving(folder: Path, runs: int) -> list[list[str]]:
    """Requests a second with 30 features, 10 of them categories, against the lab's own table."""
    cells = [f"{number(n, 2)} AS x{n}" for n in range(20)] + [f"{word(n)} AS w{n}" for n in range(10)]
    cells.append(f"(x0 + 20 * (w0 = 'red')::INT + {number(30)} / 3 > 70) AS target")
    source = write(folder / "thirty.csv", cells, 2_000)
    params = prepare(source)
    stage(params, "train")
    if not (ROOT / "models" / "candidates").exists():
        raise LabError("the lab's own table is not trained", "run `make up` or `dvc repro` first")
    nine, thirty = package(ROOT / "params.yaml", folder / "nine"), package(params, folder / "thirty")
    rates: dict[Path, list[float]] = {nine: [], thirty: []}
    for turn in range(runs):
        for place in (nine, thirty) if turn % 2 else (thirty, nine):
            rates[place].append(load(place))
    ratios = [b / a for a, b in zip(rates[nine], rates[thirty], strict=True)]
    middle = [statistics.median(rates[place]) for place in (thirty, nine)]
    return [
        [
            "requests a second, 30 features (10 categories) against nine numbers",
            "0.6",
            f"{statistics.median(ratios):.2f} ({middle[0]:,.0f} and {middle[1]:,.0f} requests/s)",
        ]
    ]


def write(path: Path, cells: list[str], rows: int) -> Path:
    """Write a CSV file whose cells are these SQL expressions."""
    with duckdb.connect() as connection:
        connection.sql(f"SELECT {', '.join(cells)} FROM range({rows})").write_csv(str(path))  # noqa: S608
    return path


def options(source: Path) -> list[str]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    return ["--table", str(source), "--target", "target", "--name", NAME]


def prepare(source: Path) -> Path:
    """Draft, ingest and validate; return the path of params.yaml."""
    subprocess.run([sys.executable, "-m", "trainer", "new", *options(source)], cwd=ROOT, check=True, timeout=600)
    for name in ("ingest", "validate"):
        stage(FOLDER / "params.yaml", name)
    return FOLDER / "params.yaml"


def stage(params: Path, name: str) -> None:
    subprocess.run([sys.executable, "-m", "trainer", name, "--params", str(params)], cwd=ROOT, check=True, timeout=1800)


def measured(*words: str) -> tuple[float, float]:
    """The seconds that a command takes, and the most memory of it and its children, in bytes (shared pages once)."""
    begin, most = time.monotonic(), 0
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL) as command:
        while command.poll() is None:
            most = max(most, resident(command.pid))
            time.sleep(0.2)
    if command.returncode:
        raise LabError(f"{' '.join(words[:4])} failed", "its message is above")
    return time.monotonic() - begin, most


def resident(pid: int) -> int:
    total = 0
    for each in [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]:
        try:
            total += psutil.Process(each).memory_full_info().pss
        except (psutil.Error, FileNotFoundError):
            continue
    return total


def package(params: Path, place: Path) -> Path:
    """A folder with a kept model, as the API starts with, and a file of requests."""
    definition, paths = problem.load(params), Paths(params.parent)
    result = read_results(paths)["logistic-regression"]
    card = make_card(definition, result, "", "", False)
    model = (paths.candidates / "logistic-regression" / MODEL_FILE).read_bytes()
    (place / "keep").mkdir(parents=True)
    kept = {"version": 1, "card": msgspec.json.encode(card), "model": model}
    (place / "keep" / f"{definition.name}.msgpack").write_bytes(msgspec.msgpack.encode(kept))
    (place / "name").write_text(definition.name)
    frame = validate.frame_of(*ingest.ingest(definition)).iloc[:500]
    records = [
        {name: from_text(feature, line[name] or "") for name, feature in definition.features.items()}
        for line in frame.to_dict("records")
    ]
    (place / "bodies").write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    return place


def load(place: Path, seconds: int = 6) -> float:
    """The requests a second that the API takes with the model in this folder."""
    from tests.lab.conftest import command

    port = process.free_port()
    url = f"http://127.0.0.1:{port}/predict"
    first = msgspec.json.decode((place / "bodies").read_bytes().partition(b"\n")[0])
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MODEL_NAME": (place / "name").read_text(),
        "API_KEY": "",
        "FOLLOW_SECONDS": "3600",
        "ALLOWED_HOSTS": "",
        "PYTHONPATH": str(ROOT),
        "EVENTS_DIR": str(place / "events"),
        "KEEP_DIR": str(place / "keep"),
        "METRICS_DIR": str(place / "metrics"),
    }

    def ready() -> bool:
        try:
            http.request("POST", url, json=first, timeout=5)
        except LabError:
            return False
        return True

    with process.running("the API", command(port), environment, place / "api.log", ready):
        time.sleep(1)
        wrk.run(url, place / "bodies", 2, "")
        rate = wrk.run(url, place / "bodies", seconds, "").requests_a_second
    shutil.rmtree(place / "events", ignore_errors=True)
    print(f"{place.name}: {rate:,.0f} requests/s", flush=True)
    return rate


if __name__ == "__main__":
    run(main)
