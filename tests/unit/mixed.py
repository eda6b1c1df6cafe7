"""A table of numbers, words, whole numbers as levels, and booleans; its training, and the API that serves it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from flask import Flask

from api import create_app
from lab import card as cards
from lab import problem
from lab.card import MODEL_FILE
from lab.problem import Problem
from trainer.__main__ import main
from trainer.model_card import make_card
from trainer.results import Paths, read_results

# A word with more commas than the codec allows for unknown fields.
COMMAS = "a, b, c, d, e, f, g, h, i, j, k, l, m"
# Words with each mark that JSON, CSV, ONNX or the codec could confuse.
TOWNS = [
    'say "hi"',
    "back\\slash",
    COMMAS,
    "{braces}}",
    "Łódź 🦀",
    "plain",
    "[1]",
    "tab?",
    "x:y",
    "#9",
    "nul",
    "l",
    "m",
]
# The towns with 10 rows or more. The others have 3 rows, and the last has none.
FREQUENT = TOWNS[:6]
RARE = TOWNS[6:12]
PARAMS = """\
name: mixed
title: Mixed
source: {path: SOURCE, missing: ["?", "n/a"]}
data: {until: ""}
id: ""
target: {column: y, negative: {value: "no", label: "no"}, positive: {value: "yes", label: "yes"}}
features:
  age: {type: integer, min: 0, max: 100}
  weight: {type: real, min: 0, max: 200, nullable: true}
  town: {type: category, nullable: true, levels: LEVELS}
  stage: {type: category, levels: [1, 2, 30]}
  smoker: {type: boolean}
candidates:
  logistic-regression:
    estimator: sklearn.linear_model.LogisticRegression
    settings: {max_iter: 5000, tol: 1.0e-9}
    grid: {C: [0.1, 1.0]}
evaluation: {folds: 3, repeats: 1, inner_folds: 2, seed: 1}
threshold: {recall: 0.9}
""".replace("LEVELS", msgspec.json.encode(TOWNS).decode())
HEADER = ["age", "weight", "town", "stage", "smoker", "y"]
Row = dict[str, Any]


def rows() -> list[Row]:
    """The rows of the table with the types of a request, None for missing, and the class as text."""
    rng = np.random.default_rng(5)
    towns: list[str | None] = [town for town in RARE for _ in range(3)] + [None] * 12
    towns += [FREQUENT[n % len(FREQUENT)] for n in range(270)]
    table = []
    for town in rng.permutation(np.array(towns, dtype=object)).tolist():
        stage = [1, 2, 30][int(rng.integers(3))]
        age, smoker = int(rng.integers(20, 90)), bool(rng.integers(2))
        weight = None if rng.random() < 0.1 else round(float(rng.normal(80, 15)), 1)
        score = (age - 55) / 12 + (town in FREQUENT[:3]) * 1.5 - 0.8 + smoker + (stage == 30) - (town is None)
        label = "yes" if rng.random() < 1 / (1 + np.exp(-score)) else "no"
        table.append({"age": age, "weight": weight, "town": town, "stage": stage, "smoker": smoker, "y": label})
    return table


def source(table: list[Row], smokers: tuple[str, str] = ("F", "yes")) -> str:
    """The table as CSV. `smokers` are the texts of false and true."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for row in table:
        cells = {**row, "smoker": smokers[row["smoker"]]}
        writer.writerow(["?" if cells[name] is None else cells[name] for name in HEADER])
    return text.getvalue()


def run(folder: Path, table: str | bytes, params: str = PARAMS, stages: str = "ingest validate train") -> Problem:
    """Run the stages on a table as `dvc repro` does; return the problem."""
    (folder / "source.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    path = folder / "params.yaml"
    path.write_text(params.replace("SOURCE", str(folder / "source.csv")), encoding="utf-8")
    with joblib.parallel_config("sequential"):  # other processes would take longer to start than a small training
        for stage in stages.split():
            assert main([stage, "--params", str(path)]) == 0
    return problem.load(path)


def package(folder: Path, definition: Problem, name: str = "logistic-regression") -> tuple[cards.Card, bytes]:
    """The card and the model of a candidate that was trained in the folder."""
    paths = Paths(folder)
    result = read_results(paths)[name]
    assert result.refusal == ""
    card = make_card(definition, result, "run", "0" * 40, False)
    return card, (paths.candidates / name / MODEL_FILE).read_bytes()


def serve(folder: Path, card: bytes, model: bytes, name: str = "mixed") -> Flask:
    """The API with this package as its stored model, and without a registry."""
    (folder / "keep").mkdir(parents=True)
    content = msgspec.msgpack.encode({"version": 7, "card": card, "model": model})
    (folder / "keep" / f"{name}.msgpack").write_bytes(content)
    return create_app(
        {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MODEL_NAME": name,
            "EVENTS_DIR": str(folder / "events"),
            "KEEP_DIR": str(folder / "keep"),
            "METRICS_DIR": str(folder / "metrics"),
            "FOLLOW_SECONDS": "3600",
        }
    )


def request(row: Row) -> Row:
    """A row as the body of a request."""
    return {name: value for name, value in row.items() if name != "y"}
