"""`make collect`: show the labelled live records that are new, ask, and add them to the dataset."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab import problem, settings
from lab.collection import PROPOSAL, Classes, Proposal
from lab.errors import LabError
from lab.problem import Collected, Problem
from lab.settings import ROOT, Settings
from launcher import engine as engines
from launcher import params_edit, pipeline, preflight, state
from launcher.console import print_table

ADD_SECONDS = 300


@dataclass(frozen=True)
class Change:
    """The files after the collection. `lines` are those of params.yaml that change, before and after."""

    collected: Collected
    records: bytes
    params: bytes
    lines: list[str]


def collect(until: str, sure: bool) -> None:
    """Show the new records up to the month `until` (empty: all), ask unless `sure`, and add them.

    Nothing is written without a yes, nor when a step fails.
    """
    if until and not re.fullmatch(problem.MONTH_PATTERN, until):
        raise LabError(f"MONTH is {until!r}", "write a month such as 2026-11")
    values = settings.load()
    pipeline.check_place(values)
    preflight.check_git()
    definition = problem.load(values.params_path)
    if not state.made_by():
        print("nothing to collect: this lab has recorded no predictions yet; `make up` starts it")
        return
    proposal = _propose(values, until)
    _show(proposal)
    if not proposal.records:
        print("nothing new to collect")
        return
    change = _change(values, definition, proposal)
    print(f"\nThis adds {_count(proposal.records)} to {change.collected.path} and changes {values.params}:")
    print("\n".join(f"  {line}" for line in change.lines))
    if not sure:
        if not sys.stdin.isatty():
            raise LabError(
                "make collect asks before it adds records, so nothing was written",
                "without a terminal: make collect YES=1",
            )
        if input("Type yes to go on: ").strip() != "yes":
            print("nothing was written")
            return
    _write(values, change)
    _report(values, change, proposal)


def _propose(values: Settings, until: str) -> Proposal:
    """The proposal of `trainer collect`, which runs where it can read the event files."""
    PROPOSAL.unlink(missing_ok=True)
    try:
        if engines.present(values).run_trainer(values, [*pipeline.COLLECT, until]) or not PROPOSAL.exists():
            raise LabError("the records could not be collected; the reason is printed above", "correct it first")
        return msgspec.json.decode(PROPOSAL.read_bytes(), type=Proposal)
    finally:
        PROPOSAL.unlink(missing_ok=True)


def _show(proposal: Proposal) -> None:
    labels = list(proposal.dataset)
    rows = [["month", "records", *labels]]
    rows += [_row(month, proposal.months[month]) for month in sorted(proposal.months)]
    print_table([*rows, _row("dataset", proposal.dataset)])
    if proposal.left_out:
        print("\nleft out:")
        print("\n".join(f"  {count:>7} {reason}" for reason, count in proposal.left_out.items()))
    for note in proposal.notes:
        print(f"note: {note}")


def _row(name: str, classes: Classes) -> list[str]:
    total = sum(classes.values())
    return [name, str(total), *(f"{count} ({count / total:.0%})" if total else "0" for count in classes.values())]


def _change(values: Settings, definition: Problem, proposal: Proposal) -> Change:
    """The new files. `data.until` moves on to the newest month, so that the next training takes the records."""
    path = values.params_path.parent / "data" / "collected.csv"
    records = proposal.text.encode()
    relative = definition.source.collected.path if definition.source.collected else str(path.relative_to(ROOT))
    collected = Collected(relative, hashlib.md5(records, usedforsecurity=False).hexdigest())
    until = definition.data.until and max(definition.data.until, *proposal.months)
    before = values.params_path.read_bytes().decode()
    after = params_edit.with_collected(before, collected, until)
    old, new = before.splitlines(), after.splitlines()
    lines = [f"- {line.strip()}" for line in old if line not in new]
    lines += [f"+ {line.strip()}" for line in new if line not in old]
    return Change(collected, records, after.encode(), lines)


def _write(values: Settings, change: Change) -> None:
    """Write the records, add them with DVC, and last change params.yaml, which then names the new hash.

    When a step fails, the earlier files are put back.
    """
    path, dvc_file = ROOT / change.collected.path, ROOT / f"{change.collected.path}.dvc"
    with _restored(path, dvc_file, values.params_path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, change.records)
        process = subprocess.run(
            ["dvc", "add", "--quiet", change.collected.path],
            cwd=ROOT,
            env=pipeline.environment(values),
            capture_output=True,
            text=True,
            timeout=ADD_SECONDS,
            check=False,
        )
        if process.returncode:
            raise LabError(f"DVC could not add {change.collected.path}: {process.stderr.strip()[-600:]}", "see above")
        _replace(values.params_path, change.params)


@contextlib.contextmanager
def _restored(*paths: Path) -> Iterator[None]:
    """Put back the content of these files when the block fails."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _replace(path, content)
        raise


def _replace(path: Path, content: bytes) -> None:
    """Write a file at once: a reader sees the whole old or the whole new content."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _report(values: Settings, change: Change, proposal: Proposal) -> None:
    params = values.params_path.relative_to(ROOT)
    ignore = (ROOT / change.collected.path).parent / ".gitignore"
    files = [str(params), f"{change.collected.path}.dvc", *([str(ignore.relative_to(ROOT))] if ignore.exists() else [])]
    print(f"added {_count(proposal.records)}; {change.collected.path} has {proposal.total} now. Commit them:")
    print(f"  git add {' '.join(files)}")
    print(f'  git commit -m "Collect {_count(proposal.records)} until {max(proposal.months)}"')
    print("then `make train` trains on them and compares with the champion")


def _count(records: int) -> str:
    return f"{records} live record{'' if records == 1 else 's'}"
