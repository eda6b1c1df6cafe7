"""Load a server with wrk: one record in each request, as many requests as the server takes."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

SCRIPT = Path(__file__).parent / "cycle.lua"
CONNECTIONS = 8
RUN_SECONDS = 2
_FIGURES = re.compile(r"^FIGURES ([\d ]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """wrk's figures; latencies in ms."""

    requests_a_second: float
    p50_ms: float
    p99_ms: float


def check() -> None:
    """Raise LabError when wrk is missing."""
    if shutil.which("wrk") is None:
        raise LabError("wrk is not installed", "install it (Debian: apt-get install wrk; macOS: brew install wrk)")


def run(url: str, bodies: Path, seconds: int, key: str) -> Figures:
    """Post the lines of `bodies` in turn over 8 connections that are kept; raise LabError when a request fails.

    New connections are opened every 2 s, because the kernel assigns connections by chance and one worker may get all.
    """
    runs = [_once(url, bodies, key) for _ in range(0, seconds, RUN_SECONDS)]
    return Figures(
        statistics.fmean(each.requests_a_second for each in runs),
        statistics.median(each.p50_ms for each in runs),
        statistics.median(each.p99_ms for each in runs),
    )


def _once(url: str, bodies: Path, key: str) -> Figures:
    headers = ["-H", "Content-Type: application/json", "-H", f"X-API-Key: {key}", "-H", "X-Client: loadtest"]
    limits = ["-t1", f"-c{CONNECTIONS}", f"-d{RUN_SECONDS}s", "--timeout", "10s"]
    command = ["wrk", *limits, *headers, "-s", str(SCRIPT), url, "--", str(bodies)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    match = _FIGURES.search(process.stdout)
    if process.returncode or not match:
        output = (process.stderr or process.stdout).strip()[-500:] or "no output"
        raise LabError(f"wrk ended with status {process.returncode}: {output}", "run it again, or install another wrk")
    requests, micros, cut, unsent, refused, late, p50, p99 = map(int, match[1].split())
    if cut or unsent or refused or late or not requests:
        raise LabError(
            f"of {requests} requests to {url}, {refused} were refused, {cut + unsent} cut, {late} timed out",
            "see the server's log in .lab/load/bench/",
        )
    return Figures(requests / micros * 1e6, p50 / 1000, p99 / 1000)
