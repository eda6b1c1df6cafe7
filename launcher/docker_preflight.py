"""Checks for the docker engine that are made before a container is started."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import msgspec
import psutil

from lab.errors import LabError
from lab.settings import ROOT, STATE, Settings
from launcher import preflight
from launcher.services import Service

# Memory of the running containers and disk space, images included, in MB: first of the lab without the Elastic part,
# then of the Elastic part. Its memory is estimated as three quarters of its limits in compose.yaml.
MEMORY_MB, ELASTIC_MEMORY_MB = 1_500, 4_500
DISK_MB, ELASTIC_DISK_MB = 6_000, 6_000
# The least value of vm.max_map_count with which Elasticsearch starts in a cluster of several nodes.
MAP_COUNT = 262_144
MADE_WITH = STATE / "images.json"
SOCKET = Path("/var/run/docker.sock")


def check(settings: Settings, services: list[Service], states: dict[str, str], published: Collection[int] = ()) -> None:
    """Raise LabError for the first thing that keeps the containers from starting.

    `states` gives the state of each existing container, `published` the ports that this lab's containers publish.
    """
    preflight.check_writable()
    _check_images(settings)
    here = {name for name, state in states.items() if not state.startswith(("exited", "created", "dead"))}
    elastic = not settings.lite and "elasticsearch" not in here
    _check_memory((0 if "api" in here else MEMORY_MB) + (ELASTIC_MEMORY_MB if elastic else 0), settings.lite)
    if not MADE_WITH.exists():
        _check_disk(DISK_MB + (0 if settings.lite else ELASTIC_DISK_MB))
    if elastic:
        _check_readable(ROOT / "services")
    preflight.check_ports(settings, services, published)


def map_count_note() -> str:
    """A note that the kernel allows fewer memory maps than Elasticsearch asks for; empty when it allows enough.

    This is not an error: a single Elasticsearch node starts with any limit, and may run out of maps later.
    """
    try:
        count = int(Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:
        return ""
    # Docker Desktop sets the value in its own virtual machine.
    if count >= MAP_COUNT or "Docker Desktop" in _info("{{.OperatingSystem}}"):
        return ""
    return (
        f"vm.max_map_count is {count}, and Elasticsearch asks for {MAP_COUNT}; should it stop with `Map failed`: "
        f"sudo sysctl -w vm.max_map_count={MAP_COUNT} (for good: a line in /etc/sysctl.conf)"
    )


def remember_images(settings: Settings) -> None:
    """Record the images that made the volumes, because an image of another version may not be able to read them."""
    MADE_WITH.write_bytes(msgspec.json.encode(_images(settings)))


def socket_group() -> int:
    """The id of the group that may use the engine's socket; the container of the stand-in AWS gets this group."""
    try:
        return SOCKET.stat().st_gid
    except OSError:
        return 0


def _images(settings: Settings) -> dict[str, str]:
    texts = settings.texts()
    return {name: texts[name] for name in ("POSTGRES_IMAGE", "ELASTIC_VERSION", "S3_IMAGE")}


def _check_images(settings: Settings) -> None:
    try:
        before = msgspec.json.decode(MADE_WITH.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return
    for name, image in _images(settings).items():
        old, new = _version(before.get(name, image)), _version(image)
        # PostgreSQL reads only files of its own major version, and Elasticsearch no files of a later version.
        unreadable = old[:1] != new[:1] if name == "POSTGRES_IMAGE" else old[:2] > new[:2]
        if name != "S3_IMAGE" and unreadable:
            raise LabError(
                f"the volumes were made with {before[name]}, which {image} cannot read",
                f"set {name}={before[name]} in .env, or remove the state: make reset",
            )


def _version(image: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", image.rpartition(":")[2])[:3]))


def owner() -> tuple[int, int]:
    """The user id and the group id that own the clone's files inside a container."""
    if "rootless" in _info(
        "{{.SecurityOptions}}"
    ):  # with rootless Docker, root in a container is the user of the engine
        return 0, 0
    stat = ROOT.stat()
    return stat.st_uid, stat.st_gid


@functools.cache
def _info(form: str) -> str:
    process = subprocess.run(
        ["docker", "info", "--format", form], capture_output=True, text=True, timeout=30, check=False
    )
    return "" if process.returncode else process.stdout.strip()


def _check_memory(needed: int, lite: bool) -> None:
    memory = psutil.virtual_memory()
    here, engine = memory.available // 2**20, _info("{{.MemTotal}}")
    total = int(engine) // 2**20 if engine.isdigit() else 0
    # Docker Desktop runs a virtual machine: the free memory of this machine is not that of Docker.
    own = 0 < total < memory.total // 2**20 * 0.95
    if (total if own else here) < needed:
        which = f"Docker may use {total} MB" if own else f"{here} MB are free"
        smaller = "make up ENGINE=embedded" if lite else f"make up LITE=1, which needs {MEMORY_MB} MB"
        raise LabError(
            f"the lab needs {needed} MB of memory; {which}",
            f"close some programs or give Docker more, or take less: {smaller}",
        )


def _check_disk(needed: int) -> None:
    root = Path(_info("{{.DockerRootDir}}") or "/")
    if root.is_dir() and (free := shutil.disk_usage(root).free // 2**20) < needed:
        raise LabError(
            f"only {free} MB are free on the disk of {root}; images and volumes need {needed}",
            "`docker system df` shows what Docker keeps, and `docker system prune` removes what is not in use",
        )


def _check_readable(folder: Path) -> None:
    """Raise LabError unless the Elastic containers, which run as other users, can read their configuration."""
    for path in (folder, *folder.rglob("*")):
        if path.stat().st_mode & 0o004 == 0:
            raise LabError(f"{path} can be read by its owner alone", f"chmod -R a+rX {folder}, or make up LITE=1")
