"""Each warning of a candidate is shown once with its count, and none is lost."""

from __future__ import annotations

import re
import time
import warnings

import joblib
import msgspec
import pytest
from sklearn.linear_model import LogisticRegression

from lab.errors import LabError
from lab.problem import Candidate
from lab.settings import ROOT
from tests.unit.test_dask import scheduler, small, worker
from trainer import cluster, evaluate
from trainer.fit_warnings import lines, recorded

FITS = 3 * (2 * 2 + 1) + 2 * 2 + 1  # 3 outer folds and the final fit; each 2 inner folds, 2 grid points, a refit
HERE = "tests.unit.test_warnings"


class Worried(LogisticRegression):
    """A classifier that warns three times of the same in each fit, and once with another number each time."""

    fits = 0

    def fit(self, x, y, sample_weight=None):
        Worried.fits += 1
        for _ in range(3):
            warnings.warn("this is always the same", RuntimeWarning, stacklevel=1)
            time.sleep(0.003)  # other threads have their turn
        warnings.warn(f"not converged,\n gap {float(x.sum()):.5e} after {Worried.fits}", UserWarning, stacklevel=2)
        warnings.warn("nobody asked for this", DeprecationWarning, stacklevel=2)
        return super().fit(x, y, sample_weight)


class Failing(Worried):
    """A classifier that warns and then fails."""

    def fit(self, x, y, sample_weight=None):
        super().fit(x, y, sample_weight)
        raise RuntimeError("no more")


def problem_with(**candidates: str):
    definition, data = small()
    classes = {name: Candidate(estimator=f"{HERE}.{kind}", grid={"C": [0.1, 1.0]}) for name, kind in candidates.items()}
    return msgspec.structs.replace(definition, candidates=classes), data


def shown(capfd) -> list[str]:
    out, err = capfd.readouterr()
    assert "Warning" not in err
    return [line for line in out.splitlines() if "arning" in line]


def expect_each_once(printed: list[str], name: str) -> None:
    mine = [line for line in printed if f"candidates.{name}," in line]
    assert len(mine) == 2, mine
    assert mine[0] == f"warning: candidates.{name}, {3 * FITS} times: RuntimeWarning: this is always the same"
    assert re.fullmatch(
        rf"warning: candidates.{name}, {FITS} times: UserWarning: not converged, gap .* after \d+", mine[1]
    )


def test_each_warning_is_shown_once_with_its_count(capfd):
    """The warnings of every fit of every fold are counted for each candidate, on every joblib backend."""
    definition, data = problem_with(one="Worried", two="Worried")
    silent = Candidate(estimator="sklearn.linear_model.LogisticRegression")
    evaluate.evaluate(definition, {**definition.candidates, "silent": silent}, data)
    printed = shown(capfd)
    assert len(printed) == 4, printed
    expect_each_once(printed, "one")
    expect_each_once(printed, "two")


def test_dask_workers_give_their_warnings_back(capfd):
    """Warnings come back from two Dask workers in processes of their own."""
    definition, data = problem_with(one="Worried")
    with scheduler() as address, worker(address, ROOT, "a"), worker(address, ROOT, "b"), cluster.backend(address):
        evaluate.evaluate(definition, definition.candidates, data)
    expect_each_once(shown(capfd), "one")


def test_threads_of_one_process_lose_none(capfd):
    """No warning is lost with several threads, as in a Dask worker, although Python records warnings per process."""
    definition, data = problem_with(one="Worried")
    with joblib.parallel_config("threading", n_jobs=4):
        evaluate.evaluate(definition, definition.candidates, data)
    expect_each_once(shown(capfd), "one")


def test_an_error_stays_an_error_and_says_what_was_warned_before():
    """The message has the candidate, the text of the estimator's error, and the warnings before it."""
    definition, data = problem_with(bad="Failing")
    with pytest.raises(LabError, match=r"candidates\.bad cannot be fitted: no more") as error:
        evaluate.evaluate(definition, definition.candidates, data)
    assert "warning before, 3 times: RuntimeWarning: this is always the same" in error.value.message


def test_a_warning_made_an_error_is_raised():
    """A warning is raised when the option -W error or a filter of a library demands it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="x"), recorded():
            warnings.warn("x", UserWarning, stacklevel=1)
    with recorded() as texts:  # the lock is free again
        warnings.warn("y", UserWarning, stacklevel=1)
    assert texts == ["UserWarning: y"]


def test_warnings_that_differ_in_numbers_are_one():
    """Warnings that differ in numbers are shown once, by the first; others are separate."""
    texts = ["A: gap 1.5e-3 of 7", "B: x", "A: gap 2e+10 of 7", "A: gap none of 7", "A: gap 0.25 of 123,456"]
    assert lines(texts) == ["3 times: A: gap 1.5e-3 of 7", "1 time: B: x", "1 time: A: gap none of 7"]
