"""A lock: only one of `up`, `down`, `train` and `reset` runs at a time; a second command names the first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from lab.errors import LabError
from lab.settings import STATE

PATH = STATE / "lock"
# The holder of the lock writes its name into the file within this number of seconds.
NAME_SECONDS = 0.3


@contextlib.contextmanager
def held(command: str) -> Iterator[None]:
    """Hold the lab's lock; the kernel releases it when the process ends, even when the process is killed.

    Raises LabError when another command holds it.
    """
    file = _locked(command)
    try:
        with contextlib.suppress(OSError):  # `down` and `reset` must also work on a full disk
            os.ftruncate(file, 0)
            os.pwrite(file, f"make {command} (pid {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(file)


def _locked(command: str) -> int:
    """Open the lock file and lock it; start over when a `reset` removed the file in between."""
    while True:
        STATE.mkdir(mode=0o700, exist_ok=True)
        file = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            time.sleep(NAME_SECONDS)
            holder = os.pread(file, 100, 0).decode(errors="replace") or "another command"
            os.close(file)
            raise LabError(
                f"{holder} is running in this folder",
                f"wait until it has ended, or interrupt it; then run `make {command}` again",
            ) from error
        with contextlib.suppress(OSError):
            if PATH.stat().st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)
