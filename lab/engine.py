"""The engines: which one is there, and the embedded one, which supervisord runs."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

import msgspec
import psutil
from supervisor.xmlrpc import SupervisorTransport

from lab import problem
from lab.errors import LabError
from lab.settings import ROOT, SETTINGS, STATE, Settings

BIN = Path(sysconfig.get_path("scripts"))
SOCKET = STATE / "run" / "supervisor.sock"
STARTED_WITH = STATE / "run" / "started-with"
LOGS = STATE / "log"
STOP_SECONDS = 60
ANSWER_SECONDS = 15


def choose(settings: Settings) -> str:
    """The engine to use. Containers come with their own release of the lab; until then: processes."""
    if settings["ENGINE"] in ("auto", "embedded"):
        return "embedded"
    if settings["ENGINE"] == "docker":
        raise LabError(
            "the docker engine is not built yet", "use the embedded one: make up ENGINE=embedded (needs no Docker)"
        )
    raise LabError(f"ENGINE is {settings['ENGINE']!r}", "it may be auto, embedded or docker")


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of the lab: this one's, the settings, and this clone's programs."""
    stated = problem.load(settings.params)
    return {
        **os.environ,
        **{s.name: settings.values[s.name] for s in SETTINGS},
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "LAB_STATE": str(STATE),
        "LAB_BIN": str(BIN),
        "LAB_ROOT": str(ROOT),
        "S3_URL": settings.s3_url,
        "MLFLOW_URL": settings.mlflow_url,
        "API_URL": settings.api_url,
        "MODEL_NAME": stated.name,
    }


def start(settings: Settings) -> None:
    """Start supervisord, which starts the services."""
    for folder in ("run", "log", "s3", "mlflow", "aws"):
        (STATE / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    # The API's workers count together in files; those of the last run are no part of this one.
    shutil.rmtree(STATE / "run" / "metrics", ignore_errors=True)
    (STATE / "run" / "metrics").mkdir(mode=0o700)
    SOCKET.unlink(missing_ok=True)
    STARTED_WITH.write_text(_started_with(settings))
    command = [str(BIN / "supervisord"), "-c", str(ROOT / "services" / "supervisord.conf")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise LabError(f"supervisord did not start: {(done.stderr or done.stdout).strip()[-500:]}", "")
    deadline = time.monotonic() + 30
    while processes() is None:
        if time.monotonic() > deadline:
            raise LabError("supervisord does not answer", f"see {LOGS / 'supervisord.log'}")
        time.sleep(0.1)


def processes() -> dict[str, dict[str, Any]] | None:
    """What supervisord says of each service, by name; None when it does not run."""
    try:
        rows: Any = _supervisor().supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None
    return {row["name"]: row for row in rows}


def revive() -> None:
    """Start again the services that supervisord has given up or was told to stop."""
    for name, row in (processes() or {}).items():
        if row["statename"] in ("FATAL", "EXITED", "STOPPED"):
            with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
                _supervisor().supervisor.startProcess(name, False)


def outdated(settings: Settings) -> bool:
    """Whether what runs was started with other settings, or for another problem, than these."""
    try:
        return STARTED_WITH.read_text() != _started_with(settings)
    except OSError:
        return True


def _started_with(settings: Settings) -> str:
    """A hash, for secrets are among the settings."""
    config = (ROOT / "services" / "supervisord.conf").read_bytes()
    told = {**settings.values, "PARAMS": problem.load(settings.params).name}
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic") + config).hexdigest()


def stop() -> bool:
    """Stop supervisord and every process of this lab, orphans too; say whether anything ran."""
    ran = processes() is not None
    if ran:
        with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
            _supervisor().supervisor.shutdown()
    deadline = time.monotonic() + STOP_SECONDS
    while ran and (left := own_processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
        if processes() is None and not _supervised(left):
            break
    return _end(own_processes()) or ran


def own_processes() -> list[psutil.Process]:
    """Every process that was started with this lab's folder as LAB_STATE, but this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("LAB_STATE") == str(STATE):
                found.append(process)
    return found


def log_end(name: str, lines: int = 15) -> str:
    """The last lines of a service's own log."""
    path = LOGS / f"{name}.log"
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log yet)"


def _supervised(left: list[psutil.Process]) -> bool:
    """Whether supervisord itself is still among them, stopping the others."""
    with contextlib.suppress(psutil.Error):
        return any("supervisord" in " ".join(process.cmdline()) for process in left)
    return True


def _end(left: list[psutil.Process]) -> bool:
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=25)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return bool(left)


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
    transport._get_connection = _Connection  # supervisor's own waits for ever
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
