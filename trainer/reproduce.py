"""Rebuild a registered version from its card, and report for each part whether it is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lab import card as cards
from lab import s3, strict_yaml, trial
from lab.errors import LabError
from lab.problem import Problem
from lab.registry import Registry
from lab.settings import ROOT, Settings
from trainer import lineage, recipe
from trainer.export import predict
from trainer.ingest import md5
from trainer.results import Paths, Result, read_results

# Sums may differ in their last digits between processors.
METRIC_TOLERANCE = 1e-9
# Size limit of the collected records, in bytes.
MOST_BYTES = 256 * 2**20


def reproduce(settings: Settings, problem: Problem, number: int) -> bool:
    """Rebuild version `number` in a fresh checkout of its commit; print and return whether all is the same."""
    registry = Registry(settings.tracking_url, problem.name)
    text, model = registry.download(registry.version(number))
    card = trial.verify(registry.model, text, model)
    recipe.check_card(card)
    if card.lineage.git_dirty:
        print("note: this version was trained with uncommitted changes; they are not in its commit")
    for name, then in card.lineage.packages.items():
        if (now := lineage.packages().get(name)) != then:
            print(f"note: {name} is {now} here, it was {then}")
    with _checkout(card.lineage.git_commit) as tree:
        _place_collected(settings, tree, card)
        paths, result = _rebuild(tree, card)
        verdicts = _compare(card, model, paths, result)
    for line, _ in verdicts:
        print(line)
    return all(same for _, same in verdicts)


@contextmanager
def _checkout(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lab-reproduce-") as folder:
        tree = Path(folder) / "tree"
        process = _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        if process.returncode:
            raise LabError(
                f"cannot check out {commit}: {process.stderr.strip()}",
                "fetch the commit (git fetch --unshallow), or use the clone the version was trained in",
            )
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def _place_collected(settings: Settings, tree: Path, card: cards.Card) -> None:
    """Put the collected records of the training into the checkout; `make train` pushed them to S3."""
    collected = card.params["source"].get("collected")
    if not collected:
        return
    path, md5_then = (tree / collected["path"]).resolve(), str(collected["md5"])
    if not path.is_relative_to(tree.resolve()):
        raise LabError(f"the collected records of this version were at {collected['path']}, outside of the clone")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(s3.get(settings, f"dvc/files/md5/{md5_then[:2]}/{md5_then[2:]}", MOST_BYTES))


def _rebuild(tree: Path, card: cards.Card) -> tuple[Paths, Result]:
    """Run the stages in the code of that commit on the parameters of the card, for one candidate only."""
    name = card.recipe.candidate
    folder = tree / ".reproduce"
    folder.mkdir()
    features = {
        feature.name: card.params["features"][feature.name] for feature in card.features
    }  # the order of the pipeline
    params = {**card.params, "features": features, "candidates": {name: card.params["candidates"][name]}}
    (folder / "params.yaml").write_bytes(strict_yaml.encode(params))
    here = {**os.environ, "DASK_SCHEDULER_ADDRESS": ""}  # Dask's workers have the present code, not the checkout's
    for stage in ("ingest", "validate", "train"):
        command = [sys.executable, "-m", "trainer", stage, "--params", str(folder / "params.yaml")]
        process = subprocess.run(command, cwd=tree, env=here, capture_output=True, text=True, timeout=3600, check=False)
        if process.returncode:
            raise LabError(f"the stage {stage} failed in the checkout:\n{process.stderr.strip()[-2000:]}")
    paths = Paths(folder)
    return paths, read_results(paths)[name]


def _compare(card: cards.Card, model: bytes, paths: Paths, result: Result) -> list[tuple[str, bool]]:
    def verdict(what: str, same: bool, detail: str) -> tuple[str, bool]:
        return f"{what:<12} {'same' if same else 'DIFFERENT':<10} {detail}", same

    data = md5(paths.dataset)
    drift = max(abs(result.mean(m) - interval.mean) for m, interval in card.metrics.items())
    x = _rows(card, paths)
    new_model = paths.candidates / card.recipe.candidate / cards.MODEL_FILE
    gap = float("inf")
    if new_model.is_file():
        gap = float(np.abs(predict(model, x) - predict(new_model.read_bytes(), x)).max())
    return [
        verdict("code", result.code_sha256 == card.lineage.code_sha256, f"commit {card.lineage.git_commit[:12]}"),
        verdict("data", data == card.lineage.data_md5, f"MD5 {data}"),
        verdict("metrics", drift <= METRIC_TOLERANCE, f"largest difference of a mean {drift:.2g}"),
        verdict("predictions", gap <= cards.TOLERANCE, f"largest difference on {len(x)} rows {gap:.2g}"),
    ]


def _rows(card: cards.Card, paths: Paths) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    from trainer.validate import inputs_of, read

    frame = read(paths.dataset)
    return np.column_stack([inputs_of(feature, frame[feature.name]) for feature in card.features])
