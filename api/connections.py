"""The connections of a worker: how many there may be, what ends them, and a line in the log when there are too many.

Granian accepts as many as `--backpressure` says and lets the others wait. It ends those that ask for nothing
(`--http1-header-read-timeout`), and says nothing of either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
from pathlib import Path

# The same as `--backpressure` in services/supervisord.conf and api/Dockerfile: connections of a worker.
CONNECTIONS = 512
# Files that a worker has open besides: its log, its events, its model, the registry.
OTHER_FILES = 256
# After which a client that reads nothing of its answer is cut off.
UNREAD_SECONDS = 30
LOOK_SECONDS = 1.0
FILES = Path("/dev/fd")
log = logging.getLogger(__name__)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Make sure that there are files for all connections, and look at them every second from now on."""
    _raise_file_limit()
    before = _open_files()
    full = False

    def look() -> None:
        nonlocal full
        there = _open_files() - before
        if there >= CONNECTIONS and not full:
            log.warning("all %d connections of this worker are taken: new ones wait until others end", CONNECTIONS)
        full = there >= CONNECTIONS
        loop.call_later(LOOK_SECONDS, look)

    def first() -> None:  # now Granian listens
        _limit_unread_answers()
        look()

    loop.call_later(LOOK_SECONDS, first)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning("%d files may be open, %d are needed: raise the limit (ulimit -n)", soft, wanted)


def _open_files() -> int:
    return sum(1 for _ in FILES.iterdir())


def _limit_unread_answers() -> None:
    """Let the kernel end connections whose client reads nothing: accepted ones inherit this from what listens."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        return
    for path in list(FILES.iterdir()):
        number = int(path.name)
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
