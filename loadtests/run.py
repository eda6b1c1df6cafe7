"""`make load`: run Locust against the running API and compare its figures with slo.yaml."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from lab import errors, http, settings
from lab.errors import LabError
from lab.settings import ROOT, STATE, Settings
from loadtests import slo
from loadtests.slo import Figures, Slo

FOLDER = Path(__file__).parent
REPORTS = STATE / "load"
# Time for Locust's start, its last requests and its report.
SPARE_SECONDS = 90


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description=__doc__)
    parser.add_argument("--users", type=int, default=20, help="connections that are always busy")
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--ui", action="store_true", help="Locust's page instead, until interrupted")
    parser.add_argument("--port", type=int, help="port of Locust's page; default: the setting LOCUST_PORT")
    arguments = parser.parse_args(words)
    if note := settings.ignored():
        print(note, file=sys.stderr)
    values = settings.load()
    arguments.port = arguments.port if arguments.port is not None else values.port("LOCUST_PORT")
    for name in ("users", "seconds", "port"):
        if getattr(arguments, name) < 1:
            raise LabError(f"--{name} is {getattr(arguments, name)}", "give a whole number from 1")
    check_ready(values)
    if arguments.ui:
        return serve(arguments.port)
    limits = slo.read()
    return judge(limits, load(arguments.users, arguments.seconds))


def check_ready(values: Settings) -> None:
    """Raise LabError unless the API serves a model."""
    try:
        http.request("GET", f"{values.api_url}/readyz")
    except http.UnreachableError as error:
        raise LabError(f"no API answers at {values.api_url}", "start the lab with `make up`") from error
    except http.RefusedError as error:
        raise LabError(f"the API is not ready: {error.message}", "see `make status`, or run `make up`") from error


def load(users: int, seconds: int) -> Figures:
    """Run Locust without its page and return its figures. Locust prints its own table."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    figures = REPORTS / "figures.json"
    figures.unlink(missing_ok=True)
    _locust(
        *("--headless", "--only-summary", "--exit-code-on-error", "0"),
        *("--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s", "--stop-timeout", "10"),
        *("--html", str(REPORTS / "report.html")),
        figures=figures,
        limit=seconds + SPARE_SECONDS,
    )
    try:
        return msgspec.json.decode(figures.read_bytes(), type=Figures)
    except FileNotFoundError as error:
        raise LabError("Locust ended without its figures", "its output above has the reason") from error


def judge(limits: Slo, figures: Figures) -> int:
    """Print one line for each limit that is broken; return 0 when none is."""
    violations = slo.faults(limits, figures)
    for fault in violations:
        print(f"BROKEN: {fault}")
    print(f"report: {(REPORTS / 'report.html').relative_to(ROOT)}")
    if not violations:
        print(f"every limit of loadtests/slo.yaml holds, over {figures.requests} requests")
    return 1 if violations else 0


def serve(port: int) -> int:
    """Serve Locust's page until it is interrupted."""
    print(f"Locust: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        _locust("--web-host", "127.0.0.1", "--web-port", str(port), limit=None)
    return 0


def _locust(*words: str, limit: float | None, figures: Path | None = None) -> None:
    """Run Locust on our locustfile; raise LabError when it fails."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(FOLDER / "locustfile.py"), *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment["PYTHONPATH"] = str(ROOT)
    if figures:
        environment["LOAD_FIGURES"] = str(figures)
    process = subprocess.run(command, cwd=ROOT, env=environment, timeout=limit, check=False)
    if process.returncode:
        raise LabError(f"Locust ended with status {process.returncode}", "its output above has the reason")


if __name__ == "__main__":
    errors.run(main)
