"""`make bench-serving`: compare this API with other servers in one run, on the same trained model.

Only one server runs at a time. The rounds are interleaved, each in another order, and the report gives medians, because
a machine may be slower in one minute than in the next.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from lab import errors, http, settings
from lab.errors import LabError
from lab.settings import ROOT, STATE
from loadtests.bench import model, process, report, wrk
from loadtests.bench.cases import KEY, Case, cases
from loadtests.bench.model import Models

FOLDER = STATE / "load" / "bench"
CHECKED = 20
WARM_SECONDS = 2
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: int
    only: frozenset[str]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is measured")
    parser.add_argument("--seconds", type=int, default=6, help="of load in a round")
    parser.add_argument("--other", default=".venv-bench", help="the environment with the other servers")
    parser.add_argument("--only", default="", help="keys of cases, with commas between; nothing is written then")
    arguments = parser.parse_args(words)
    only = frozenset(filter(None, arguments.only.split(",")))
    if arguments.rounds < 1 or arguments.seconds < 1:
        raise LabError("--rounds and --seconds are numbers from 1", "give such ones")
    other = (ROOT / arguments.other).resolve()
    if not (other / "bin" / "bentoml").is_file():
        raise LabError(f"the other servers are not in {other}", "run `make bench-serving`, which installs them")
    wrk.check()
    # The server ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(Options(arguments.rounds, arguments.seconds, only), other)


def run(options: Options, other: Path) -> None:
    """Train, measure every case in every round, and write the report."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    print("training the two candidates", flush=True)
    models = model.make(settings.load(), FOLDER)
    todo = [case for case in cases(models, other) if not options.only or case.key in options.only]
    measured: report.Rounds = defaultdict(list)
    for number in range(options.rounds):
        turn = number * len(todo) // options.rounds
        for case in todo[turn:] + todo[:turn]:
            result = measure(models, case, options)
            measured[case.key].append(result)
            print(
                f"round {number + 1}: {case.title:<47} {result.figures.requests_a_second:8.0f} requests/s"
                f"  p99 {result.figures.p99_ms:7.2f} ms  {result.memory.worker:5.0f} MB a worker",
                flush=True,
            )
    text = report.table(todo, measured)
    print("\n" + text)
    if not options.only:
        report.write(todo, measured, options.rounds, options.seconds)


def measure(models: Models, case: Case, options: Options) -> report.Measured:
    """Start a server, compare its answers with scikit-learn's, warm it up, load it, measure its memory and end it."""
    state = models.folder / "state"
    shutil.rmtree(state, ignore_errors=True)  # of an earlier run: hundreds of megabytes of events
    port = process.free_port()
    url = f"http://127.0.0.1:{port}{case.path}"
    with case.bodies.open("rb") as file:
        lines = list(islice(file, CHECKED))
    log = models.folder / f"{case.key}.log"
    with process.running(case.title, case.at(port), case.environment, log, lambda: answers(url, lines[0])) as server:
        # Every worker must answer before the load starts, not only the first worker.
        time.sleep(1)
        check(models, case, url, lines)
        wrk.run(url, case.bodies, WARM_SECONDS, KEY)
        figures = wrk.run(url, case.bodies, options.seconds, KEY)
        memory = process.weigh(server)
    shutil.rmtree(state, ignore_errors=True)
    return report.Measured(figures, memory)


def answers(url: str, body: bytes) -> bool:
    """Whether the server answers a first request with 200."""
    try:
        http.request("POST", url, json=msgspec.json.decode(body), key=KEY, timeout=10)
    except LabError:
        return False
    return True


def check(models: Models, case: Case, url: str, lines: list[bytes]) -> None:
    """Raise LabError unless the server answers every request of the file with scikit-learn's probabilities."""
    expectation = np.resize(models.expected[case.model], len(lines) * case.rows)
    for number, line in enumerate(lines):
        answer = http.decode(url, http.request("POST", url, json=msgspec.json.decode(line), key=KEY))
        if case.probabilities is None:
            continue
        probabilities = np.array(case.probabilities(answer))
        part = expectation[number * case.rows : (number + 1) * case.rows]
        if probabilities.shape != part.shape or not np.abs(probabilities - part).max() <= TOLERANCE:
            raise LabError(
                f"{case.title} gives {probabilities[:3]} for request {number + 1}, scikit-learn {part[:3]}",
                f"it serves another model; see .lab/load/bench/{case.key}.log",
            )


if __name__ == "__main__":
    errors.run(main)
