"""Which event files go: closed ones, oldest first, once they are too old, too many, or the disk has little room left.

A writer calls `prune` when it opens a file; several may do so at once. How a reader keeps what it still needs is said
in `lab.events`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

# The least free space, in bytes, and as a share of a smaller disk.
FREE, FREE_SHARE = 2**30, 0.05
SUFFIX, CHECKPOINT = ".ndjson", ".checkpoint"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """How long event files stay, counted from their last event, and how much all of them may have."""

    days: float = 90
    megabytes: float = 2_000


@dataclass(frozen=True)
class _File:
    path: Path
    written: float
    size: int


def hold(file: int) -> None:
    """Mark the file as open, until it is closed or its process ends, however it ends."""
    with contextlib.suppress(OSError):  # a file system without locks: nothing is deleted there
        fcntl.flock(file, fcntl.LOCK_EX)


def is_open(path: Path) -> bool:
    """Whether a writer still has the file, or that cannot be known.

    A lock tells it. The process id in the name would not: ids come again, and each container has its own.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def prune(folder: Path, retention: Retention) -> None:
    """Delete what may go. A fault is logged: it must not keep an event from being recorded."""
    try:
        _prune(folder, retention)
    except OSError as error:
        log.warning("event files are not deleted: %s", error)


def _prune(folder: Path, retention: Retention) -> None:
    files = _files(folder)
    whole, missing = sum(file.size for file in files), _missing(folder)
    oldest, limit = time.time() - retention.days * 86_400, round(retention.megabytes * 10**6)
    needed = _needed(folder)
    kept = 0
    for file in files:
        if file.written >= oldest and whole <= limit and missing <= 0:
            break
        if is_open(file.path):
            continue
        if any(file.path.name not in names for names in needed):
            kept += 1
            continue
        try:
            file.path.unlink(missing_ok=True)  # another worker may be at it, too
        except OSError as error:
            log.warning("%s is not deleted: %s", file.path.name, error.strerror)
            continue
        whole, missing = whole - file.size, missing - file.size
        log.info("deleted %s, last written %s", file.path.name, time.strftime("%F", time.gmtime(file.written)))
    if kept:
        log.warning("%d event files stay beyond their limits: a reader's checkpoint does not name them", kept)


def _files(folder: Path) -> list[_File]:
    """Every event file, the one that was written longest ago first."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append(_File(path, status.st_mtime, status.st_size))
    return sorted(found, key=lambda file: (file.written, file.path.name))


def _missing(folder: Path) -> float:
    """Bytes that have to go for the disk to have the least free space."""
    disk = shutil.disk_usage(folder)
    return min(FREE, FREE_SHARE * disk.total) - disk.free


def _needed(folder: Path) -> list[frozenset[str]]:
    """What each checkpoint gives free; nothing for one that cannot be read."""
    found = []
    for path in folder.glob(f"*{CHECKPOINT}"):
        try:
            names = frozenset(path.read_text().splitlines())
            if wrong := next((name for name in names if not name.endswith(SUFFIX)), None):
                raise ValueError(f"{wrong!r} is no event file's name")
        except (OSError, ValueError) as error:
            log.warning("no event file is deleted, for the checkpoint %s cannot be read: %s", path.name, error)
            names = frozenset()
        found.append(names)
    return found
