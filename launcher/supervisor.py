"""The embedded engine: the services as processes, which supervisord runs."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from typing import Any

import msgspec
import psutil
from supervisor.xmlrpc import SupervisorTransport

from lab import problem
from lab.errors import LabError
from lab.settings import ROOT, STATE, Settings
from launcher import certificate, pipeline, preflight
from launcher.console import Progress
from launcher.pipeline import CHECK, refused_table
from launcher.process_env import BIN, environment
from launcher.services import Service
from launcher.services import processes as wanted
from launcher.state import note_engine

NAME = "embedded"
SOCKET = STATE / "run" / "supervisor.sock"
STARTED_WITH = STATE / "run" / "started-with"
LOGS = STATE / "log"
STOP_SECONDS = 60
ANSWER_SECONDS = 15
# A running service answers within this number of seconds, even on a busy machine.
HEALTH_SECONDS = 5
# Processes that a killed supervisord left get SIGTERM, and SIGKILL after this number of seconds, because Streamlit does
# not end when its output has no reader. KEEPERS get more time because they write files on exit; SeaweedFS may take 20
# s.
END_SECONDS = (5, 20, 10, 10)
KEEPERS = ("s3", "mlflow", "aws")
# A service counts as unable to start after this number of starts by supervisord.
STARTS = 4


def services(settings: Settings) -> list[Service]:
    return wanted(settings)


def check(settings: Settings) -> None:
    if processes() is None or outdated(settings):
        preflight.check(settings, own_processes())


def check_table(settings: Settings, _progress: Progress) -> None:
    command = [sys.executable, *CHECK, "--params", str(settings.params_path)]
    process = subprocess.run(
        command, cwd=ROOT, env=pipeline.environment(settings), capture_output=True, text=True, timeout=600, check=False
    )
    if process.returncode:
        raise refused_table(settings, process.stderr)


def start(settings: Settings, progress: Progress) -> None:
    if processes() is not None and outdated(settings):
        progress.done("stopping the services, because their settings changed")
        stop(settings)
    if processes() is None:
        if own_processes():
            progress.done("ending the processes that a killed supervisord left")
            stop(settings)
        note_engine(NAME)
        progress.done("starting the services as processes")
        _supervise(settings)
    else:
        _revive(settings)
    _wait(settings, progress)


def states(settings: Settings) -> dict[str, str]:
    """The state of each service by supervisord: "up" when the service runs and answers."""
    state_of = {name: str(row["statename"]).lower() for name, row in (processes() or {}).items()}
    for service in wanted(settings):
        if state_of.get(service.name) == "running":
            state_of[service.name] = "up" if service.healthy(settings, HEALTH_SECONDS) else "up, not answering yet"
    return {name: state for name, state in state_of.items() if state != "stopped"}


def store(settings: Settings) -> str:
    return settings.s3_endpoint_url or f"the folder {STATE / 's3'}"


def train(settings: Settings, options: Sequence[str] = ()) -> None:
    pipeline.run(settings, options)


def run_trainer(settings: Settings, words: Sequence[str]) -> int:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=pipeline.environment(settings), check=False).returncode


def follow(_settings: Settings, names: list[str]) -> None:
    subprocess.run(["tail", "-n", "0", "-F", *(str(LOGS / f"{name}.log") for name in names)], check=False)


def remove(settings: Settings) -> None:
    stop(settings)


def _supervise(settings: Settings) -> None:
    """Start supervisord, which starts the services."""
    # This folder holds SeaweedFS's keys, sockets and logs, which are used in one run only.
    shutil.rmtree(STATE / "seaweedfs", ignore_errors=True)
    for folder in ("run", "log", "s3", "seaweedfs", "mlflow", "aws"):
        (STATE / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate.draw(STATE / "seaweedfs")
    # The API's workers write their counts to files. The files of an earlier run are removed.
    shutil.rmtree(STATE / "run" / "metrics", ignore_errors=True)
    (STATE / "run" / "metrics").mkdir(mode=0o700)
    SOCKET.unlink(missing_ok=True)
    STARTED_WITH.write_text(_started_with(settings))
    command = [sys.executable, "-m", "launcher.supervisord", "-c", str(ROOT / "services" / "supervisord.conf")]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment({}), "LAB_STATE": str(STATE)},
        input=msgspec.json.encode(_values(settings)).decode(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if process.returncode:
        raise LabError(f"supervisord did not start: {(process.stderr or process.stdout).strip()[-500:]}", "")
    deadline = time.monotonic() + 30
    while processes() is None:
        if time.monotonic() > deadline:
            raise LabError("supervisord does not answer", f"see {LOGS / 'supervisord.log'}")
        time.sleep(0.1)


def _values(settings: Settings) -> dict[str, str]:
    """The values that services/supervisord.conf uses."""
    return {
        **settings.texts(),
        "LAB_BIN": str(BIN),
        "LAB_ROOT": str(ROOT),
        "S3_URL": settings.s3_url,
        "MLFLOW_URL": settings.tracking_url,
        "API_URL": settings.api_url,
        "MODEL_NAME": problem.load(settings.params_path).name,
    }


def processes() -> dict[str, dict[str, Any]] | None:
    """supervisord's report of each service, by name; None when supervisord does not run."""
    try:
        rows: Any = _supervisor().supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None
    return {row["name"]: row for row in rows}


def _revive(settings: Settings) -> None:
    """Start the services that supervisord has given up, or that somebody stopped."""
    names = {service.name for service in wanted(settings)}
    for name, row in (processes() or {}).items():
        if name in names and row["statename"] in ("FATAL", "EXITED", "STOPPED"):
            with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
                _supervisor().supervisor.startProcess(name, False)


def outdated(settings: Settings) -> bool:
    if processes() is None:
        return False
    try:
        return STARTED_WITH.read_text() != _started_with(settings)
    except OSError:
        return True


def _started_with(settings: Settings) -> str:
    """A hash of the settings instead of the settings themselves, because they include secrets."""
    config = (ROOT / "services" / "supervisord.conf").read_bytes()
    content = {**settings.texts(), "PARAMS": problem.load(settings.params_path).name}
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic") + config).hexdigest()


def stop(_settings: Settings) -> bool:
    """Stop supervisord and every process of this lab, orphans included, and wait until none is left.

    Returns whether a process ran. Raises LabError when a process cannot be ended.
    """
    ran = processes() is not None
    if ran:
        with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
            _supervisor().supervisor.shutdown()
    deadline = time.monotonic() + STOP_SECONDS
    while ran and (orphans := own_processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
        if processes() is None and not _supervised(orphans):
            break
    return _end() or ran


def own_processes() -> list[psutil.Process]:
    """Every process that was started with this lab's folder as LAB_STATE, except the present process."""
    own = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("LAB_STATE") == str(STATE):
                own.append(process)
    return own


def log_end(_settings: Settings, name: str, lines: int = 15) -> str:
    """The last lines of a service's log, with those of the rotated file when the current one has too few."""
    text: list[str] = []
    for path in (LOGS / f"{name}.log", LOGS / f"{name}.log.1"):
        if len(text) < lines:
            with contextlib.suppress(OSError):
                text = path.read_text(errors="replace").splitlines() + text
    return "\n".join(text[-lines:]) or "(no log yet)"


def _wait(settings: Settings, progress: Progress) -> None:
    """Wait until every service is healthy; raise LabError with the end of its log for one that does not start."""
    remainder, limit = wanted(settings), settings.start_seconds
    pids: dict[str, set[object]] = {service.name: set() for service in remainder}
    while remainder:
        for service in list(remainder):
            if service.healthy(settings):
                remainder.remove(service)
                progress.done(f"{service.title} is up")
        if not remainder:
            return
        progress.waiting(", ".join(service.title for service in remainder))
        table = processes() or {}
        for service in remainder:
            state = table.get(service.name, {})
            # supervisord restarts a service that dies after some seconds without limit, and never calls it FATAL.
            pids[service.name] |= {state.get("pid", 0)} - {0}
            hopeless = state.get("statename") == "FATAL" or len(pids[service.name]) > STARTS
            if hopeless or progress.seconds() > limit:
                raise LabError(
                    f"{service.title} does not start. Its log ends:\n{log_end(settings, service.name, 40)}",
                    f"the whole log is {LOGS / service.name}.log; then `make down` and `make up`",
                )
        time.sleep(1)


def _supervised(orphans: list[psutil.Process]) -> bool:
    """Whether supervisord is among these processes. If so, it is still stopping the others."""
    with contextlib.suppress(psutil.Error):
        return any("supervisord" in " ".join(process.cmdline()) for process in orphans)
    return True


def _end() -> bool:
    """End every process of this lab, also those that start meanwhile; return whether there was any.

    Ports and files are free only when the processes are gone. Raises LabError when a process cannot be ended.
    """
    ended = False
    for number, seconds in enumerate(END_SECONDS):
        orphans, deadline = own_processes(), time.monotonic() + seconds
        for process in orphans:
            with contextlib.suppress(psutil.Error):
                if not number:
                    process.terminate()
                elif number > 1 or process.environ().get("SUPERVISOR_PROCESS_NAME") not in KEEPERS:
                    process.kill()
        ended = ended or bool(orphans)
        while orphans and time.monotonic() < deadline:
            time.sleep(0.2)
            orphans = own_processes()
        if not orphans:
            return ended
    pids = ", ".join(str(process.pid) for process in orphans)
    raise LabError(f"these processes of the lab cannot be ended: {pids}", "end them by hand, or restart the machine")


class _Connection(http.client.HTTPConnection):
    """HTTP over supervisord's unix socket, with a limit on every wait."""

    def __init__(self, _url: str = "") -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(str(SOCKET))


def _supervisor() -> Any:
    transport = SupervisorTransport(None, None, f"unix://{SOCKET}")
    transport._get_connection = _Connection  # supervisor's own connection has no time limit
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
