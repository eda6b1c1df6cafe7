"""A client of `lab.http` gives up an answer that is too large or never ends."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from lab import http

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
# What the server sends without end after the head.
ENDLESS = {
    "/announced": (b"Content-Length: 1000000000000\r\n\r\n", b"x" * 2**16),
    "/chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 2**16 + b"\r\n"),
    "/unannounced": (b"Connection: close\r\n\r\n", b"x" * 2**16),
    "/slow": (b"Connection: close\r\n\r\n", b"x"),
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        head, part = ENDLESS[path]
        try:
            self.wfile.write(HEAD + head)
            while True:
                self.wfile.write(part)
                time.sleep(0.05 if path == "/slow" else 0)
        except OSError:  # the client gave it up
            return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("path", ["/announced", "/chunked", "/unannounced"])
def test_no_more_is_read_than_was_asked_for(url, path):
    """The limit holds for every way in which an answer states its length."""
    with pytest.raises(http.TooLargeError, match="more than 1 MB"):
        http.request("GET", url + path, most=2**20)


def test_an_answer_that_trickles_is_given_up(url, monkeypatch):
    """Many short waits are given up when together they exceed the limit."""
    monkeypatch.setattr(http, "WHOLE_SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(http.UnreachableError, match="took more than 1 s"):
        http.request("GET", url + "/slow")
    assert time.monotonic() - start < 10
