"""Delete closed event files, oldest first, when they are too old, too large in sum, or the disk is nearly full.

A writer calls `prune` when it opens a file, and once a minute; several writers may do so at once. `lab.events`
describes how a reader keeps the files that it still needs.
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

# The free space to keep on the disk: the lesser of a number of bytes and a share of the disk.
FREE, FREE_SHARE = 2**30, 0.05
SUFFIX, CHECKPOINT = ".ndjson", ".checkpoint"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """The limits of event files: days after their last event, and MB of all files together."""

    days: float = 90
    megabytes: float = 2_000


@dataclass(frozen=True)
class _File:
    path: Path
    written: float
    size: int


def hold(file: int) -> None:
    """Lock the file descriptor `file`, to mark the file as open until it is closed or its process ends."""
    with contextlib.suppress(OSError):  # when the file system has no locks, no file is deleted
        fcntl.flock(file, fcntl.LOCK_EX)


def is_open(path: Path) -> bool:
    """Whether a writer still has the file open; true when the check fails.

    The check uses the writer's lock. The process id in the file's name would not do, because ids are reused, and
    processes in different containers can have the same id.
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
    """Delete the files that may be deleted. Errors are only logged, so that the event is still recorded."""
    try:
        _prune(folder, retention)
    except OSError as error:
        log.warning("event files are not deleted: %s", error)


def _prune(folder: Path, retention: Retention) -> None:
    files = _files(folder)
    whole, missing = sum(file.size for file in files), _missing(folder)
    oldest, limit = time.time() - retention.days * 86_400, round(retention.megabytes * 10**6)
    needed = _needed(folder)
    remainder = 0
    for file in files:
        if file.written >= oldest and whole <= limit and missing <= 0:
            break
        if is_open(file.path):
            continue
        if any(file.path.name not in names for names in needed):
            remainder += 1
            continue
        try:
            file.path.unlink(missing_ok=True)  # another worker may delete it at the same time
        except OSError as error:
            log.warning("%s is not deleted: %s", file.path.name, error.strerror)
            continue
        whole, missing = whole - file.size, missing - file.size
        log.info("deleted %s, last written %s", file.path.name, time.strftime("%F", time.gmtime(file.written)))
    if remainder:
        log.warning("%d event files are over the limits but kept: a reader's checkpoint does not name them", remainder)


def _files(folder: Path) -> list[_File]:
    """Every event file, sorted by the time of its last write, the oldest first."""
    files = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            files.append(_File(path, status.st_mtime, status.st_size))
    return sorted(files, key=lambda file: (file.written, file.path.name))


def _missing(folder: Path) -> float:
    """Bytes to delete until the disk has its minimum of free space; zero or less when it has."""
    disk = shutil.disk_usage(folder)
    return min(FREE, FREE_SHARE * disk.total) - disk.free


def _needed(folder: Path) -> list[frozenset[str]]:
    """The files that its reader no longer needs, for each checkpoint; empty for a checkpoint that cannot be read."""
    names_in_use = []
    for path in folder.glob(f"*{CHECKPOINT}"):
        try:
            names = frozenset(path.read_text().splitlines())
            if other := next((name for name in names if not name.endswith(SUFFIX)), None):
                raise ValueError(f"{other!r} is not the name of an event file")
        except (OSError, ValueError) as error:
            log.warning("no event file is deleted, because the checkpoint %s cannot be read: %s", path.name, error)
            names = frozenset()
        names_in_use.append(names)
    return names_in_use
