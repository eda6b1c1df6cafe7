"""The Flask app on Granian's own interface, RSGI: the body is awaited, with limits, before the app sees the request.

A WSGI server gives a request a thread, and the thread waits for as long as the client takes over its body: a few
dozen slow clients stop it. Here a slow client costs a coroutine, and only until its time is over.
https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from io import BytesIO
from time import perf_counter_ns
from typing import Any

from flask import Flask
from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope  # type: ignore[attr-defined]

from api import create_app
from api.edge import LIMITS, Wsgi, allowed
from api.environ import BEGUN, BUSY, FAULT, LATE

# In which a whole body must be here: the largest batch at 5 Mbit/s.
BODY_SECONDS = 30.0
# What all the batches that a worker waits for may have together: slow clients must not fill its memory, and those
# with one record must not suffer from those with many.
ALL_BATCHES, SMALL = 64 * 2**20, LIMITS["/predict"]
# A body beyond its limit is read and dropped up to here, so that the client reads the refusal; then it is cut.
MOST_READ = 32 * 2**20
_FIXED = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


class Server:
    """Granian's target: one app a worker, and one request at a time in it, which is what a core can do."""

    def __init__(self, make: Callable[[], Flask]) -> None:
        self._make = make

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the app when the worker begins: its threads would not outlive the fork."""
        self._app: Wsgi = self._make().wsgi_app
        self._seconds = float(os.environ.get("BODY_SECONDS", BODY_SECONDS))
        self._key, self._awaited = os.environ.get("API_KEY", "").encode(), 0

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        environ = _environ(scope)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and allowed(environ, self._key):
            await self._receive(environ, protocol)
        protocol.response_bytes(*_answer(self._app, environ))

    async def _receive(self, environ: dict[str, Any], protocol: HTTPProtocol) -> None:
        """Put the body into `environ`, or why there is none."""
        length, limit = environ.get("CONTENT_LENGTH", ""), LIMITS.get(environ["PATH_INFO"], 0)
        size = min(int(length), limit) if length.isdigit() else limit
        if size <= SMALL:
            size = 0
        elif self._awaited + size > ALL_BATCHES:
            environ[FAULT] = BUSY
            return
        self._awaited += size
        try:
            async with asyncio.timeout(self._seconds):
                environ["wsgi.input"] = await _body(length, limit, protocol)
        except TimeoutError:
            environ[FAULT] = LATE
        except (ProtocolClosed, ProtocolError):  # the client left half-way: it reads no answer
            pass
        finally:
            self._awaited -= size


async def _body(length: str, limit: int, protocol: HTTPProtocol) -> BytesIO:
    """The body, up to a byte more than its route allows, for the app to refuse."""
    if length.isdigit() and int(length) <= limit:
        return BytesIO(await protocol())
    kept, seen = bytearray(), 0
    async for part in protocol:
        kept += part[: limit + 1 - len(kept)]
        seen += len(part)
        if seen > MOST_READ:
            break
    return BytesIO(bytes(kept))


def _environ(scope: Scope) -> dict[str, Any]:
    """What PEP 3333 asks for, without the body."""
    path, (name, _, port) = scope.path, scope.server.rpartition(":")
    environ: dict[str, Any] = {
        **_FIXED,
        BEGUN: perf_counter_ns(),
        "wsgi.input": BytesIO(),
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": path if path.isascii() else path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.url_scheme": scope.scheme,
    }
    if scope.authority:  # HTTP/2 has no Host
        environ["HTTP_HOST"] = scope.authority
    for header, value in scope.headers.items():
        if key := _key(header):
            environ[key] = f"{environ[key]}, {value}" if key in environ else value
    return environ


@cache
def _key(header: str) -> str:
    """The header's name in `environ`; none for one with an underscore, which could pass for another."""
    if "_" in header:
        return ""
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _answer(app: Wsgi, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    """Run the app to its end; give status, headers and body."""
    status, headers = "", []

    def start(given: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> None:
        nonlocal status, headers
        status, headers = given, fields

    parts: Iterable[bytes] = app(environ, start)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return int(status[:3]), headers, body


server = Server(create_app)
