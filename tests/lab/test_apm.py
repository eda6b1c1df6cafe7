"""Tests that the APM agent's traces follow Elastic's schemas, and that no request waits for the APM Server."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
import zlib

import jsonschema
import msgspec
import pytest

from lab.settings import ROOT
from tests.lab.conftest import BENIGN, eventually

SCHEMAS = ROOT.parent / "shared" / "specs" / "apm-intake"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# Far above what a request takes, below the least time-out of the agent (2 s).
SECONDS = 1.9


@pytest.fixture
def serve(start_api, lab, tmp_path):
    """Give a function that starts an API with the lab's champion, without a registry, that sends traces to a URL."""
    keep = tmp_path / "keep"
    keep.mkdir()
    name = "breast-cancer-wisconsin.msgpack"
    (keep / name).write_bytes((lab.root / ".lab" / "api" / name).read_bytes())

    def start(url: str, **variables: str):
        return start_api(
            MLFLOW_TRACKING_URI="http://127.0.0.1:9",
            MODEL_NAME="breast-cancer-wisconsin",
            ELASTIC_APM_SERVER_URL=url,
            ELASTIC_APM_API_REQUEST_TIME="500ms",
            **variables,
        )

    return start


class Receiver(http.server.BaseHTTPRequestHandler):
    """A stand-in for the APM Server that accepts intake v2 (deflated NDJSON) and keeps the lines."""

    lines: list[dict]

    def do_GET(self) -> None:
        self._say(200, {"version": "9.5.1", "build_date": "2026-10-01T00:00:00Z", "build_sha": "0" * 40})

    def do_POST(self) -> None:
        assert self.path == "/intake/v2/events"
        assert self.headers["Content-Type"] == "application/x-ndjson"
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding"):
            body = zlib.decompress(body, zlib.MAX_WBITS | 32)
        self.lines.extend(json.loads(line) for line in body.splitlines())
        self._say(202, {})

    def _say(self, status: int, value: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver():
    """Start a stand-in for the APM Server, and give its received lines and its URL."""
    handler = type("Handler", (Receiver,), {"lines": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler.lines, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_transactions_carry_the_version_and_the_trace(serve, receiver):
    """Each request makes one transaction with the model's version, and its event has the same trace id."""
    lines, url = receiver
    api = serve(url)
    parent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert api.ask("POST", "/predict", BENIGN, **parent)[0] == 200
    assert api.ask("POST", "/predict", {"mitoses": 99})[0] == 422
    assert eventually(lambda: len(_transactions(lines, "POST /predict")) == 2), lines
    version = api.ready()["version"]
    for transaction in _transactions(lines, "POST /predict"):
        assert transaction["context"]["tags"]["model_version"] == str(version)
    assert {t["result"] for t in _transactions(lines, "POST /predict")} == {"HTTP 2xx", "HTTP 4xx"}
    events = [event for event in api.events() if event["trace.id"] == TRACE]
    assert [event["event.dataset"] for event in events] == ["lab.prediction"]
    assert TRACE in {t["trace_id"] for t in _transactions(lines, "POST /predict")}
    traces = {t["trace_id"] for t in _transactions(lines, "POST /predict")}
    assert traces == {e["trace.id"] for e in api.events() if e.get("url.path", "/predict") == "/predict"}


def _transactions(lines: list[dict], name: str) -> list[dict]:
    transactions = [line["transaction"] for line in lines if "transaction" in line]
    return [transaction for transaction in transactions if transaction["name"] == name]


def test_what_is_sent_fits_elastics_schemas(serve, receiver):
    """Every line that the agent sends for good, bad and unknown requests is valid under Elastic's schemas."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"Elastic's schemas are not at {SCHEMAS}")
    lines, url = receiver
    api = serve(url)
    api.ask("POST", "/predict", BENIGN)
    api.ask("POST", "/predict/batch", {"instances": [BENIGN] * 3})
    api.ask("POST", "/predict", {})
    api.ask("GET", "/docs/nothing")
    assert eventually(lambda: sum("transaction" in line for line in lines) >= 4)
    kinds = set()
    for line in lines:
        ((kind, value),) = line.items()
        path = SCHEMAS / f"{kind}.json"
        jsonschema.validate(value, msgspec.json.decode(path.read_bytes()))
        kinds.add(kind)
    assert {"metadata", "transaction"} <= kinds


@pytest.mark.parametrize("kind", ["absent", "black hole"])
def test_no_request_waits_for_the_apm_server(serve, kind):
    """Requests and the stop stay quick when nothing listens at the APM Server's address or the server never answers."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        if kind == "black hole":
            hole.listen()
        api = serve(f"http://127.0.0.1:{hole.getsockname()[1]}")
        slowest = 0.0
        for _ in range(300):
            start = time.monotonic()
            assert api.ask("POST", "/predict", BENIGN)[0] == 200
            slowest = max(slowest, time.monotonic() - start)
        time.sleep(3)  # the agent has met its time-out by now
        start = time.monotonic()
        assert api.ask("POST", "/predict", BENIGN)[0] == 200
        slowest = max(slowest, time.monotonic() - start)
        assert slowest < SECONDS
        assert api.stop() == 0
    assert len([e for e in api.events() if e["event.dataset"] == "lab.prediction"]) == 301
