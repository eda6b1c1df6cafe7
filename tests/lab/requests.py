"""Helpers that send requests as raw bytes and return raw answers, because an HTTP client would alter both."""

from __future__ import annotations

import contextlib
import http.client
import socket

RECORD = b'{"a":1}'
# The largest batch.
GOOD = b'{"instances":[' + b",".join([RECORD] * 10_000) + b"]}"
HOST = b"Host: 127.0.0.1\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
SIZES = {"/predict": 64 * 1024, "/feedback": 64 * 1024, "/predict/batch": 16 * 2**20}


def post(path: str, body: bytes, head: bytes = JSON) -> bytes:
    """Return the bytes of a POST request."""
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), head, len(body)) + body


def tell(port: int, *parts: bytes, half: bool = False) -> bytes:
    """Send the parts on a new connection, and return all bytes that come back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
            if half:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(2**16):
                answer += piece
        return answer


def send(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """POST the body, and return the status and the body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
