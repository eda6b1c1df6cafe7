"""The Flask app on RSGI, Granian's own interface. The body is received, with limits, before the app gets the request.

A WSGI server uses a thread for each request, and the thread waits until the client has sent its body, so a few dozen
slow clients block the server. Here a slow client costs only a coroutine, which ends at the time limit.
https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from time import perf_counter_ns
from typing import Any, BinaryIO

from flask import Flask
from granian.rsgi import HTTPProtocol, Scope  # type: ignore[attr-defined]

from api import create_app
from api.bodies import BODY_SECONDS, BUSY, FAULT, SMALL, CutError, Room
from api.connections import watch
from api.middleware import BEGUN, LIMITS, Wsgi
from api.responses import cut

# Answers up to this size are sent in one piece; larger ones in pieces of this size, as the client reads them.
PIECE = 128 * 1024


class File:
    """WSGI's `wsgi.file_wrapper`: Granian reads the file itself, piece by piece."""

    def __init__(self, file: BinaryIO, size: int = PIECE) -> None:
        self.name: str = file.name
        self._file, self._size = file, size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(self._size), b"")

    def close(self) -> None:
        self._file.close()


_FIXED = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.file_wrapper": File,
}
Answer = tuple[int, list[tuple[str, str]], bytes | File]


class Server:
    """Granian's target. A worker has one app, which handles one request at a time, because a worker uses one core."""

    def __init__(self, make: Callable[[], Flask]) -> None:
        self._make = make

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the app when the worker begins, because the app's threads would not survive the fork."""
        app = self._make()
        self._close: Callable[[], None] = app.extensions["close"]
        self._app: Wsgi = app.wsgi_app
        self._gate = app.extensions["gate"]
        self._room = Room(float(os.environ.get("BODY_SECONDS", BODY_SECONDS)))
        # Requests with large bodies run one at a time; those with small bodies run between them.
        self._turn = asyncio.Lock()
        watch(loop)

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        """Close the app when the worker ends normally, so that the last counts and traces are kept."""
        self._close()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        environ = _environ(scope)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") or self._gate(environ):
            await self._send(protocol, _answer(self._app, environ))
            return
        try:
            size = await self._room.receive(environ, protocol, LIMITS.get(environ["PATH_INFO"], 0))
        except CutError:
            protocol.response_bytes(*cut())
            return
        try:
            if size <= SMALL and environ["PATH_INFO"] != "/predict/batch":
                answer = _answer(self._app, environ)
            else:
                async with self._turn:
                    if self._room.full and FAULT not in environ:
                        environ[FAULT] = BUSY
                    answer = _answer(self._app, environ)
        finally:
            environ.clear()
            self._room.give_back(size)
        sending = self._send(protocol, answer)
        del answer
        await sending

    async def _send(self, protocol: HTTPProtocol, answer: Answer) -> None:
        """Hand the answer to Granian. A large one counts against the room until the client has read it."""
        status, headers, body = answer
        if isinstance(body, File):
            protocol.response_file(status, headers, body.name)
        elif len(body) <= PIECE:
            protocol.response_bytes(status, headers, body)
        else:
            size = len(body)
            self._room.take(size)
            try:
                stream = protocol.response_stream(status, headers)
                for begin in range(0, size, PIECE):
                    await stream.send_bytes(body[begin : begin + PIECE])
                del answer, body, stream
                await protocol.client_disconnect()  # also returns when the client has read all but the last piece
            finally:
                self._room.give_back(size)


def _environ(scope: Scope) -> dict[str, Any]:
    """The `environ` of PEP 3333, without the body."""
    path, query, version = scope.path, scope.query_string, scope.http_version
    name, _, port = scope.server.rpartition(":")
    environ: dict[str, Any] = {
        **_FIXED,
        BEGUN: perf_counter_ns(),
        "wsgi.input": BytesIO(),
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": path if path.isascii() else path.encode().decode("latin-1"),
        "QUERY_STRING": query if query.isascii() else query.encode().decode("latin-1"),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1" if version == "1.1" else f"HTTP/{version}.0",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.url_scheme": scope.scheme,
    }
    for header, value in scope.headers.items():
        if key := _key(header):
            environ[key] = f"{environ[key]}, {value}" if key in environ else value
    # A request with an absolute URI, as for a proxy, names the host twice; the host in the URI counts.
    if (authority := scope.authority) and "," not in environ.get("HTTP_HOST", ","):
        environ["HTTP_HOST"] = authority
    return environ


@lru_cache(maxsize=128)
def _key(header: str) -> str:
    """The header's name in `environ`; empty for a name with an underscore, which could stand for another header."""
    if "_" in header:
        return ""
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _answer(app: Wsgi, environ: dict[str, Any]) -> Answer:
    """Run the app; return status, headers and body."""
    status, headers = "", []

    def start(line: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> None:
        nonlocal status, headers
        status, headers = line, fields

    parts: Iterable[bytes] = app(environ, start)
    try:
        body = parts if isinstance(parts, File) else b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return int(status[:3]), headers, body


server = Server(create_app)
