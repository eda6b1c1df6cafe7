"""Helpers that open another program's page in a browser on this machine, and that send single requests."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.browser.test_dashboard import browser  # noqa: F401


def ask(port: str, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
    """Send one request to a port of 127.0.0.1; underscores in header names become dashes."""
    line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    with contextlib.closing(line):
        line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = line.getresponse()
        return answer.status, answer.read()


@dataclass
class Page:
    """An empty page on a port of its own, open in a browser."""

    url: str
    driver: Any

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the statements as an asynchronous script that can read `arguments`, and return its result."""
        self.driver.get(self.url)
        self.driver.set_script_timeout(120)
        return self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1]; (async () => {{ {script} }})().then(done, done);",
            *arguments,
        )


@pytest.fixture
def page(browser) -> Iterator[Page]:  # noqa: F811
    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>another program</title><body></body>")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # By name, so that it is of the same site as services that are called by name.
    yield Page(f"http://localhost:{server.server_port}/", browser)
    server.shutdown()
