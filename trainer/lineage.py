"""Where a model comes from: hashes of data, parameters and code, the commit, the packages."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import version
from typing import Any

import msgspec

from lab.errors import LabError
from lab.problem import Candidate, Problem, to_builtins
from lab.settings import ROOT

# What a trained model depends on besides data and parameters; dvc.yaml lists the same as dependencies.
CODE = ("trainer", "lab/problem.py", "lab/card.py", "lab/operators.py", "lab/package.py", "lab/trial.py")
PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skl2onnx", "onnx", "onnxruntime")


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def code_sha256() -> str:
    """SHA-256 over the names and bytes of the code that makes a model."""
    total = hashlib.sha256()
    for place in CODE:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()


def packages() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def fingerprint(problem: Problem, candidate: Candidate, data_md5: str) -> str:
    """The same for two trainings of a candidate that must give the same model.

    The gate's own parameters (`choice`) and the other candidates have no part in it.
    """
    stated = to_builtins(problem)
    kept = {key: stated[key] for key in ("features", "target", "evaluation", "threshold")}
    return digest([data_md5, kept, msgspec.to_builtins(candidate), code_sha256()])


def git_state() -> tuple[str, bool]:
    """The commit and whether anything else than dvc.lock differs from it.

    dvc.lock is left out because training itself writes it.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":(exclude,glob)**/dvc.lock")
    return commit, bool(changes)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError as error:
        raise LabError("git is not installed", "install git: every model records its commit") from error
    except subprocess.CalledProcessError as error:
        raise LabError(
            f"git {words[0]} failed: {error.stderr.strip()}",
            "run the lab in a git clone with at least one commit (git init && git add -A && git commit)",
        ) from error
    return done.stdout.strip()
