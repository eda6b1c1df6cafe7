"""The lineage of a model: hashes of data, parameters and code, the commit, the packages."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import packages_distributions, version
from typing import Any

import msgspec

from lab.errors import LabError
from lab.problem import Candidate, Problem, to_builtins
from lab.settings import ROOT
from trainer.estimators import declared

# The modules that shape a model or its card: a change in one of them can change the models. dvc.yaml lists the same
# modules as dependencies of the training, and a test compares both lists with the imports of `trainer.train`.
CODE = (
    "lab/card.py",
    "lab/operators.py",
    "lab/package.py",
    "lab/problem.py",
    "lab/problem_faults.py",
    "lab/record.py",
    "lab/trial.py",
    "trainer/collected.py",
    "trainer/converters.py",
    "trainer/encoding.py",
    "trainer/encoding_onnx.py",
    "trainer/estimators.py",
    "trainer/evaluate.py",
    "trainer/export.py",
    "trainer/folds.py",
    "trainer/forward.py",
    "trainer/ingest.py",
    "trainer/metrics.py",
    "trainer/model_card.py",
    "trainer/promise.py",
    "trainer/reference.py",
    "trainer/significance.py",
    "trainer/source.py",
    "trainer/table.py",
    "trainer/threshold.py",
    "trainer/train.py",
    "trainer/validate.py",
)
# The packages whose versions shape a model, in addition to the package of its estimator.
SHAPING = ("scikit-learn", "numpy", "scipy", "skl2onnx", "onnx")
# The packages whose versions a card records.
PACKAGES = (*SHAPING, "pandas", "onnxruntime", "lightgbm", "xgboost-cpu", "onnxmltools")


def digest(value: Any) -> str:
    """SHA-256 of a JSON value; the order of its keys does not matter."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def code_sha256() -> str:
    """SHA-256 over the names and bytes of the code that makes a model."""
    total = hashlib.sha256()
    for place in CODE:
        total.update(f"{place}\0".encode() + (ROOT / place).read_bytes() + b"\0")
    return total.hexdigest()


def packages() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def shaping_packages(*estimators: str) -> dict[str, str]:
    """The version of each package that shapes a model of these estimators, given by their import paths."""
    distributions = packages_distributions()
    names = {*SHAPING}
    for package in {estimator.partition(".")[0] for estimator in estimators}:
        names |= {*distributions.get(package, [])}
        if package in ("lightgbm", "xgboost"):
            names.add("onnxmltools")  # it converts their models
    return {name: version(name) for name in sorted(names)}


def fingerprint(problem: Problem, candidate: Candidate, data_md5: str) -> str:
    """A hash that is equal for two trainings of a candidate that must give the same model.

    It covers the data, the candidate, the parameters that shape a model, the code, and the versions of the packages. It
    covers neither the gate's parameters (`choice`) nor the other candidates.
    """
    fields = to_builtins(problem)
    parts = {key: fields[key] for key in ("features", "target", "evaluation", "threshold")}
    estimators = [path for path, _ in declared(candidate.estimator, candidate.settings)]
    return digest([data_md5, parts, msgspec.to_builtins(candidate), code_sha256(), shaping_packages(*estimators)])


def git_state() -> tuple[str, bool]:
    """The commit, and whether a file other than dvc.lock differs from the commit.

    dvc.lock is left out because the training itself writes it.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":(exclude,glob)**/dvc.lock")
    return commit, bool(changes)


def _git(*words: str) -> str:
    try:
        process = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError as error:
        raise LabError("git is not installed", "install git: every model records its commit") from error
    except subprocess.CalledProcessError as error:
        raise LabError(
            f"git {words[0]} failed: {error.stderr.strip()}",
            "run the lab in a git clone with at least one commit (git init && git add -A && git commit)",
        ) from error
    return process.stdout.strip()
