"""`make new`: from the file of a table to a folder with its copy and a first params.yaml."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import duckdb

from lab import problem
from lab.errors import LabError, from_os_error
from lab.settings import ROOT
from trainer.draft import columns, quick, report, text
from trainer.draft.file import File, load
from trainer.draft.plan import Plan, find, make

TABLES = ROOT / "tables"
# A larger file is better kept with DVC than in git.
LARGE_BYTES = 10 * 2**20


def new(table: Path, target: str, positive: str = "", name: str = "") -> None:
    """Look at the table, print the findings, and write `tables/<name>/`; raises LabError and writes nothing."""
    name = _name(table, name)
    folder = TABLES / name
    if folder.exists():
        raise LabError(f"tables/{name} exists", "give another name: NAME=…; or remove the folder")
    with tempfile.TemporaryDirectory(prefix="lab-new-") as spill, duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{spill}'")
        file = load(connection, table, target)
        found = columns.look(connection, file)
        chosen = find(found, target)
        plan = make(found, chosen, columns.values(connection, chosen), positive)
        path = f"tables/{name}/data/source/{table.name}"
        draft = _Draft(name, path, _sha256(table), file, plan)
        outlook = quick.look(connection, file, plan, draft.parse(0.5))
        plan.warnings += _outlook_warnings(plan, outlook)
        if repeats := columns.repeated_rows(connection, [chosen, *(plan.columns[each] for each in plan.features)]):
            plan.warnings.append(f"{repeats:,} rows repeat another row in every feature and in the target")
    draft.parse(outlook.floor)
    _write(folder, table, draft.compose(outlook.floor))
    report.show(file, plan)
    print(
        f"ROC AUC of a logistic regression on a sample: {outlook.mean:.3f} ± {outlook.sd:.3f} over {quick.FOLDS} folds"
    )
    for warning in plan.warnings:
        print(f"warning: {warning}")
    print(f"wrote tables/{name}/params.yaml. Read it, then: make up PARAMS=tables/{name}/params.yaml")
    print(f"  What to do: git add tables/{name} && git commit; every model records its commit")
    if table.stat().st_size > LARGE_BYTES:
        print(f"  The file is large: `dvc add {path}` keeps it out of git")


class _Draft:
    """The text of params.yaml for a floor."""

    def __init__(self, name: str, path: str, digest: str, file: File, plan: Plan) -> None:
        self._name, self._path, self._digest, self._file, self._plan = name, path, digest, file, plan

    def compose(self, floor: float) -> str:
        title = self._file.path.stem.replace("_", " ").replace("-", " ").strip().capitalize() or self._name
        return text.compose(self._name, title, self._path, self._digest, self._file, self._plan, floor)

    def parse(self, floor: float) -> problem.Problem:
        return problem.parse(self.compose(floor), f"tables/{self._name}/params.yaml")


def _name(table: Path, name: str) -> str:
    if not name:
        name = re.sub(r"[^a-z0-9]+", "-", table.stem.lower()).strip("-")[:60]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise LabError(
            f"{name!r} cannot be the name of a table",
            "NAME= has lower-case letters, digits and hyphens, as in my-table",
        )
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _outlook_warnings(plan: Plan, outlook: quick.Quick) -> list[str]:
    warnings = [
        f"{name} alone tells the classes apart (ROC AUC {auc:.3f}): is it known before the outcome? If not, move it "
        "from features to source.unused"
        for name, auc in outlook.leaks.items()
    ]
    if outlook.mean < 0.55:
        warnings.append(
            f"a logistic regression hardly tells the classes of {plan.target.column.name} apart: the features may not "
            "say much about it"
        )
    return warnings


def _write(folder: Path, table: Path, params: str) -> None:
    """Write the folder of the table at once: it is made under another name first."""
    try:
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as place:
            whole = Path(place) / "table"
            (whole / "data" / "source").mkdir(parents=True)
            shutil.copyfile(table, whole / "data" / "source" / table.name)
            (whole / "params.yaml").write_text(params, encoding="utf-8")
            whole.rename(folder)
    except OSError as error:
        raise from_os_error(error) from error
