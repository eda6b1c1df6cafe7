"""Let asyncio send small answers at once. Python imports this module when its folder is on PYTHONPATH.

uvicorn with several workers gives asyncio a socket on which asyncio leaves Nagle's algorithm on: the socket's protocol
is 0, and asyncio looks for IPPROTO_TCP. Head and body of an answer are two writes, so the body waits for the client's
delayed acknowledgement, 40 ms on Linux. The wait is caused by TCP and not by the server's work.
"""

from __future__ import annotations

import socket
from asyncio import base_events


def _set_nodelay(sock: socket.socket) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


base_events._set_nodelay = _set_nodelay  # type: ignore[attr-defined]
