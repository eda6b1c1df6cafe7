"""Tests of `make load` against the running lab."""

from __future__ import annotations

import sys

from tests.recorded import written


def test_locust_loads_every_route_and_none_fails(lab):
    """Locust's predictions, batches and feedback all succeed, and they are in the report and in the events.

    The test ignores a broken limit of the p99, because the speed depends on the machine.
    """
    before = _counted(lab)
    process = lab.run(sys.executable, "-m", "loadtests.run", "--users", "5", "--seconds", "5", seconds=180)
    violations = [line for line in process.stdout.splitlines() if line.startswith("BROKEN") and "p99" not in line]
    assert violations == [], process.stdout[-3000:]
    assert process.returncode == int("BROKEN" in process.stdout)
    assert (lab.root / ".lab" / "load" / "report.html").stat().st_size > 10_000
    after = _counted(lab)
    assert after["lab.prediction"] > before.get("lab.prediction", 0) + 100
    assert after["lab.feedback"] > before.get("lab.feedback", 0) + 10
    assert after.get("lab.request", 0) == before.get("lab.request", 0), "no request was refused"


def _counted(lab) -> dict[str, int]:
    result: dict[str, int] = {}
    for event in written(lab.root / ".lab" / "events"):
        result[event["event.dataset"]] = result.get(event["event.dataset"], 0) + 1
    return result


def test_without_an_api_it_says_what_to_do(lab):
    """Without an API the load test exits with an error status and a message that says how to start the lab."""
    process = lab.run(sys.executable, "-m", "loadtests.run", "--seconds", "1", API_PORT="9")
    assert process.returncode == 1
    assert "What to do: start the lab with `make up`" in process.stderr
