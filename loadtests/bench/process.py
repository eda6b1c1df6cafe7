"""Start a server, wait for it, measure its memory, and end it with all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.errors import LabError
from lab.settings import ROOT, Settings

START_SECONDS = 120
STOP_SECONDS = 20
WORKERS = Settings().api_workers


@dataclass(frozen=True)
class Memory:
    """MB: the proportional set size of a worker and of all processes, and the resident set size of a worker."""

    worker: float
    whole: float
    worker_resident: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    name: str, command: list[str], environment: dict[str, str], log: Path, answers: Callable[[], bool]
) -> Iterator[psutil.Process]:
    """Run the command until the block ends. The block begins when `answers` is true; LabError when it stays false."""
    with log.open("ab") as file:
        # The server has a process group of its own, so that its child processes end with it.
        server = psutil.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if server.poll() is not None or time.monotonic() > deadline:
                end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise LabError(f"{name} does not answer; the end of its log:\n{end}", f"see {log.relative_to(ROOT)}")
            time.sleep(0.1)
        yield server
    finally:
        _end(server)


def weigh(server: psutil.Process) -> Memory:
    """The memory of a server and of its workers, which are the largest two of its processes."""
    figures = []
    for process in [server, *server.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            full = process.memory_full_info()
            # Only Linux has the proportional set size; other systems give the memory that the process does not share.
            figures.append((getattr(full, "pss", full.uss) / 1e6, full.rss / 1e6))
    workers = sorted(figures, reverse=True)[:WORKERS]
    return Memory(
        worker=sum(pss for pss, _ in workers) / len(workers),
        whole=sum(pss for pss, _ in figures),
        worker_resident=sum(rss for _, rss in workers) / len(workers),
    )


def _end(server: psutil.Process) -> None:
    family = [server]
    with contextlib.suppress(psutil.Error):
        family += server.children(recursive=True)
    with contextlib.suppress(OSError):
        os.killpg(server.pid, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=STOP_SECONDS)
