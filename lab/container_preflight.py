"""What can be known to go wrong with containers before any is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import psutil

from lab import preflight
from lab.errors import LabError
from lab.services import Service
from lab.settings import STATE, Settings

# MB that all of it takes at work, and of disk with its images; without the Elastic part.
MEMORY_MB, LITE_MEMORY_MB = 6_000, 1_500
DISK_MB, LITE_DISK_MB = 12_000, 6_000
# Elasticsearch does not start below it.
MAP_COUNT = 262_144
MADE_WITH = STATE / "images.json"
SOCKET = Path("/var/run/docker.sock")


def check(settings: Settings, services: list[Service], running: dict[str, str]) -> None:
    """Raise LabError for the first thing that keeps the containers from starting."""
    settings.number("API_WORKERS", 1, 64)
    preflight.check_folder()
    _check_images(settings)
    if running:  # what runs holds its ports and its memory
        return
    lite = bool(settings["LITE"])
    _check_memory(LITE_MEMORY_MB if lite else MEMORY_MB, lite)
    _check_disk(LITE_DISK_MB if lite else DISK_MB)
    if not lite:
        _check_map_count()
    preflight.check_ports(settings, services)


def remember_images(settings: Settings) -> None:
    """Note what made the volumes: a later version may not be able to read them."""
    MADE_WITH.write_bytes(msgspec.json.encode(_images(settings)))


def socket_group() -> int:
    """The group that may use the engine's socket; the stand-in AWS joins it."""
    try:
        return SOCKET.stat().st_gid
    except OSError:
        return 0


def _images(settings: Settings) -> dict[str, str]:
    return {name: settings[name] for name in ("POSTGRES_IMAGE", "ELASTIC_VERSION", "S3_IMAGE")}


def _check_images(settings: Settings) -> None:
    try:
        before = msgspec.json.decode(MADE_WITH.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return
    for name, image in _images(settings).items():
        old, new = _version(before.get(name, image)), _version(image)
        # PostgreSQL reads the files of its own major version only; Elasticsearch none of a later one.
        unreadable = old[:1] != new[:1] if name == "POSTGRES_IMAGE" else old[:2] > new[:2]
        if name != "S3_IMAGE" and unreadable:
            raise LabError(
                f"the volumes were made with {before[name]}, which {image} cannot read",
                f"set {name}={before[name]} in .env, or begin anew: make reset",
            )


def _version(image: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", image.rpartition(":")[2])[:3]))


def _check_memory(needed: int, lite: bool) -> None:
    # In Docker Desktop the engine has a machine of its own, with less memory than this one.
    total = subprocess.run(
        ["docker", "info", "--format", "{{.MemTotal}}"], capture_output=True, text=True, timeout=30, check=False
    ).stdout.strip()
    here = psutil.virtual_memory().available // 2**20
    there = int(total) // 2**20 if total.isdigit() and int(total) else here
    if min(here, there) < needed:
        which = f"{here} MB are free here" if here <= there else f"Docker may use {there} MB"
        smaller = "make up ENGINE=embedded" if lite else "make up LITE=1 (needs 1500 MB)"
        raise LabError(
            f"the lab needs {needed} MB of memory; {which}",
            f"close some programs or give Docker more, or take less: {smaller}",
        )


def _check_disk(needed: int) -> None:
    done = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"], capture_output=True, text=True, timeout=30, check=False
    )
    root = Path(done.stdout.strip() or "/")
    if root.is_dir() and (free := shutil.disk_usage(root).free // 2**20) < needed:
        raise LabError(
            f"only {free} MB are free on the disk of {root}; images and volumes need {needed}",
            "`docker system df` shows what Docker keeps, `docker system prune` removes what nobody uses",
        )


def _check_map_count() -> None:
    try:
        count = int(Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:  # not Linux: Docker's own machine has it set
        return
    if count < MAP_COUNT and os.uname().sysname == "Linux":
        raise LabError(
            f"vm.max_map_count is {count}; Elasticsearch needs {MAP_COUNT}",
            f"sudo sysctl -w vm.max_map_count={MAP_COUNT} (for good: a line in /etc/sysctl.conf), or make up LITE=1",
        )
