"""Checks before any service is started. Each error names the cause and the remedy."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

from lab.errors import LabError
from lab.setting_types import GRPC_OFFSET
from lab.settings import ROOT, STATE, Settings
from launcher.process_env import BIN
from launcher.services import Service, processes

DISK_MB = 1_000
MEMORY_MB = 1_500
# A unix socket's path has at most 108 bytes on Linux, 104 on macOS.
SOCKET_PATH = 103


def check(settings: Settings, own: Sequence[psutil.Process] = ()) -> None:
    """Raise LabError for the first reason why the lab would not start.

    `own` are this lab's running processes. They end before the start, so their memory and ports count as free.
    """
    check_git()
    _check_folder()
    _check_room(sum(_resident(process) for process in own))
    check_ports(settings, processes(settings), _listening(own))
    check_sockets(settings)


def check_git() -> None:
    """Raise LabError unless this folder is in a git checkout with a commit."""
    if not shutil.which("git"):
        raise LabError("git is not installed", "install git: DVC and the lineage of every model need it")
    process = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    if process.returncode:
        raise LabError(
            f"{ROOT} is not a git checkout with a commit: {process.stderr.strip()}",
            "clone the repository, or: git init && git add -A && git commit -m Begin",
        )


def _check_folder() -> None:
    if characters := sorted(set(f"{ROOT}{BIN}") & set("'\"%")):
        raise LabError(
            f"the path {ROOT} has {' and '.join(characters)} in it, which supervisord's configuration cannot hold",
            "move the clone to a path without quotes and percent signs",
        )
    socket_path = STATE / "run" / "supervisor.sock"
    if len(os.fsencode(socket_path)) > SOCKET_PATH:
        raise LabError(
            f"the path {ROOT} is too long: the lab's control socket would exceed {SOCKET_PATH} bytes",
            "move the clone to a shorter path",
        )
    check_writable()


def check_writable() -> None:
    """Raise an OSError unless the state can be written to this folder."""
    STATE.mkdir(mode=0o700, exist_ok=True)  # raises an OSError in a read-only folder
    probe = STATE / ".writable"
    probe.write_text("")
    probe.unlink()


def _check_room(freed: int = 0) -> None:
    """Raise LabError unless disk and memory suffice; `freed` bytes of memory count as free."""
    free = shutil.disk_usage(ROOT).free // 2**20
    if free < DISK_MB:
        raise LabError(
            f"only {free} MB are free on the disk of {ROOT}; the lab needs {DISK_MB}",
            "free some space, or clone to another disk",
        )
    memory = (psutil.virtual_memory().available + freed) // 2**20
    if memory < MEMORY_MB:
        largest = sorted(psutil.process_iter(["name", "memory_info"]), key=_rss, reverse=True)[:3]
        names = ", ".join(f"{p.info['name']} (pid {p.pid}, {_rss(p) // 2**20} MB)" for p in largest)
        raise LabError(
            f"only {memory} MB of memory are available; the lab needs {MEMORY_MB}. The largest users: {names}",
            "close one of them",
        )


def _rss(process: psutil.Process) -> int:
    return process.info["memory_info"].rss if process.info["memory_info"] else 0


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _listening(processes: Sequence[psutil.Process]) -> set[int]:
    """The ports that these processes listen on."""
    ports = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections("inet")
            ports |= {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return ports


def check_ports(settings: Settings, services: Sequence[Service], own: Collection[int] = ()) -> None:
    """Raise LabError unless every port of these services is free or in `own`, and no two services need the same one."""
    claims: dict[int, str] = {}
    for port, setting in (pair for service in services for pair in service.ports(settings)):
        if port in claims:
            raise LabError(
                f"{setting} and {claims[port]} both need port {port}",
                "give one of them another port; SeaweedFS also takes each of its ports plus 10000",
            )
        claims[port] = setting
    for port, setting in claims.items():
        if port not in own and not _free(port):
            # A setting with two ports holds the lower one.
            pair = list(claims.values()).count(setting) > 1
            other = _suggest(settings.port(setting), GRPC_OFFSET if pair else 0, claims.keys())
            raise LabError(
                f"port {port} ({setting}) is in use{_holder(port)}",
                f"stop that program, or choose another port: make up {setting}={other}",
            )


def check_sockets(settings: Settings) -> None:
    """Raise LabError when another user owns a file at the path of a SeaweedFS socket: SeaweedFS would not start."""
    for part in ("master", "volume", "filer", "admin", "s3"):
        setting = "S3_PORT" if part == "s3" else f"S3_{part.upper()}_PORT"
        # SeaweedFS has no setting for this folder and these names.
        path = Path(f"/tmp/seaweedfs-{part}-grpc-{settings.port(setting) + GRPC_OFFSET}.sock")  # noqa: S108
        with contextlib.suppress(FileNotFoundError):
            owner = path.lstat().st_uid
            if owner != os.geteuid() and os.geteuid():  # root may replace the file
                ports = [port for service in processes(settings) for port, _ in service.ports(settings)]
                other = _suggest(settings.port(setting), GRPC_OFFSET, ports)
                raise LabError(
                    f"{path}, where S3 makes a socket, belongs to the user {owner}",
                    f"remove the file as that user, or choose another port: make up {setting}={other}",
                )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # The servers also set this option, so a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _suggest(port: int, offset: int, claims: Collection[int]) -> str:
    """A port near `port` that is free and that no service needs; the same holds for the port `offset` above it."""
    near = [*range(port + 1, port + 500), *range(port - 1, port - 500, -1)]
    for each in (each for each in near if 1_024 <= each <= 65_535 - offset):
        if all(_free(p) and p not in claims for p in {each, each + offset}):
            return str(each)
    return "…"


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and tuple(connection.laddr)[1:2] == (port,):
                process = psutil.Process(connection.pid)
                return f" by {process.name()} (pid {process.pid}{_folder(process)})"
    except psutil.Error:  # on macOS, and for processes of other users, this needs more rights
        pass
    return " by a program of another user"


def _folder(process: psutil.Process) -> str:
    try:
        return f", in {Path(process.cwd())}"
    except psutil.Error:
        return ""
