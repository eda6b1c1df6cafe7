"""The limits of a load test, and the figures that break them."""

from __future__ import annotations

import pytest

from lab.errors import LabError
from loadtests import slo
from loadtests.slo import Figures, Route

LIMITS = slo.Slo(failed_share=0.001, p99_ms={"/predict": 100, "/feedback": 50})


def seen(failures: int = 0, p99: float = 10, exceptions: int = 0, feedback: int = 1000) -> Figures:
    return Figures({"/predict": Route(9000, failures, p99), "/feedback": Route(feedback, 0, 10)}, exceptions)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (seen(), []),
        (seen(failures=10), []),
        (seen(failures=11), ["11 of 10000 requests failed"]),
        (seen(p99=100.5), ["p99 of /predict is 100.5 ms"]),
        (seen(feedback=0), ["there was no request to /feedback"]),
        (seen(exceptions=2), ["raised 2 times"]),
        (Figures({}, 0), ["no request was made"]),
        (seen(failures=5000, p99=900), ["requests failed", "p99 of /predict"]),
    ],
)
def test_every_broken_limit_is_said(run, message):
    """Every broken limit is reported and no other; a tenth of a percent of the requests may fail."""
    violations = slo.faults(LIMITS, run)
    assert len(violations) == len(message)
    assert all(part in fault for part, fault in zip(message, violations, strict=True))


def test_the_limits_of_the_repository_are_read():
    """loadtests/slo.yaml is valid, and at most 0.1 % of the requests may fail."""
    assert slo.read().failed_share == 0.001
    assert "/predict" in slo.read().p99_ms


@pytest.mark.parametrize("text", ["failed_share: 2\np99_ms: {/predict: 1}", "failed_share: 0.1", "p99: 1", "- 1"])
def test_a_wrong_file_says_where(tmp_path, text):
    """The message has the place in the file and a remedy."""
    (tmp_path / "slo.yaml").write_text(text)
    with pytest.raises(LabError) as error:
        slo.read(tmp_path / "slo.yaml")
    assert "slo.yaml" in error.value.message
    assert "correct it there" in error.value.remedy
