"""Watch the connections of a worker, and log when the limit on their number is reached.

Granian accepts as many connections as `--backpressure` says and lets the others wait. It closes those that send no
request (`--http1-header-read-timeout`). It logs neither.
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

# The most connections of a worker; `--backpressure` in services/supervisord.conf and api/Dockerfile is the same.
CONNECTIONS = 512
# Further open files of a worker: its log, its events, its model, and connections to the registry.
OTHER_FILES = 256
# The kernel closes the connection of a client that has not read its answer for this time.
UNREAD_SECONDS = 30
LOOK_SECONDS = 1.0
FILES = Path("/dev/fd")
log = logging.getLogger(__name__)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Raise the limit on open files to fit all connections, and count the connections every second."""
    _raise_file_limit()
    before = _open_files()
    full = False

    def look() -> None:
        nonlocal full
        count = _open_files() - before
        if count >= CONNECTIONS and not full:
            log.warning("all %d connections of this worker are in use: new ones wait until others end", CONNECTIONS)
        full = count >= CONNECTIONS
        loop.call_later(LOOK_SECONDS, look)

    def first() -> None:  # Granian listens by now
        _limit_unread_answers()
        look()

    loop.call_later(LOOK_SECONDS, first)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit if hard < 0 else min(limit, hard), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limit:
        log.warning("the limit on open files is %d, and %d are needed: raise it (ulimit -n)", soft, limit)


def _open_files() -> int:
    return sum(1 for _ in FILES.iterdir())


def _limit_unread_answers() -> None:
    """Let the kernel end connections whose client reads nothing. Connections inherit the listening socket's option."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # only Linux has this option
        return
    for path in list(FILES.iterdir()):
        number = int(path.name)
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
