"""Alerts to a receiver on a real HTTP server: monitor.webhook."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
import urllib3

from monitor import webhook
from monitor.webhook import GIVE_UP_SECONDS, MOST_WAITING, Message, Outbox

SECRET = "a shared secret"


class Receiver(ThreadingHTTPServer):
    """Takes alerts; answers with the next of `statuses`, then with 204. The status 0 means no answer at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.hang = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=t0ken"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if not status:
            self.server.hang.wait(30)
            return
        self.server.taken.append((dict(self.headers), body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.hang.set()
    server.shutdown()
    server.server_close()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def message(number: int = 1, made: float = 1_000.0) -> Message:
    return Message(number, {"text": "the promised recall is broken", "version": 2}, made)


def test_an_alert_arrives_signed(receiver: Receiver) -> None:
    """The receiver gets the alert as JSON, and the signature is the HMAC of the body with the shared secret."""
    outbox = Outbox()
    outbox.add(message())
    assert outbox.send(receiver.url, SECRET)
    ((headers, body),) = receiver.taken
    assert json.loads(body) == {"text": "the promised recall is broken", "version": 2}
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Lab-Signature"] == f"sha256={digest}"
    assert headers["X-Lab-Alert"] == "1"
    assert (outbox.waiting, outbox.sent) == ([], 1)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_alert_is_sent_again_with_growing_pauses(receiver: Receiver, status: int) -> None:
    """After each failure the alert waits longer, also in a process that was started anew, and arrives in the end."""
    receiver.statuses, clock, outbox, pauses = [status] * 3, Clock(), Outbox(), list[float]()
    outbox.add(message())
    while outbox.waiting:
        outbox = msgspec.json.decode(msgspec.json.encode(outbox), type=Outbox)
        assert outbox.send(receiver.url, SECRET, clock)
        if outbox.waiting:
            assert not outbox.send(receiver.url, SECRET, clock)
            assert str(status) in outbox.fault
            pauses.append(outbox.waiting[0].next - clock.now)
            clock.now = outbox.waiting[0].next
    assert pauses == [1.0, 2.0, 4.0]
    assert (outbox.sent, outbox.fault, len(receiver.taken)) == (1, "", 4)


def test_a_receiver_that_hangs_costs_a_limited_time(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that never answers is left after the time limit, and the alert waits."""
    monkeypatch.setattr(webhook, "TIMEOUT", urllib3.Timeout(connect=1, read=0.2))
    receiver.statuses, outbox = [0], Outbox()
    outbox.add(message())
    assert outbox.send(receiver.url, SECRET, Clock())
    assert "Timeout" in outbox.fault
    assert len(outbox.waiting) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x?token=t0ken", "no url", "http://[::1/t0ken"])
def test_an_address_without_a_receiver_is_a_fault_that_names_no_token(url: str) -> None:
    """Where nothing listens, or the address is wrong, the fault is told without the token in the address."""
    outbox = Outbox()
    outbox.add(message())
    outbox.send(url, SECRET, Clock())
    assert outbox.fault
    assert "t0ken" not in outbox.fault
    assert outbox.waiting


def test_alerts_are_given_up_in_the_end(receiver: Receiver) -> None:
    """An alert is given up after a day, and the oldest when too many wait."""
    receiver.statuses, clock, outbox = [500], Clock(), Outbox()
    outbox.add(message(made=clock.now - GIVE_UP_SECONDS - 1))
    outbox.send(receiver.url, SECRET, clock)
    assert (outbox.waiting, outbox.given_up) == ([], 1)
    for number in range(MOST_WAITING + 1):
        outbox.add(message(number))
    assert (outbox.waiting[0].number, len(outbox.waiting), outbox.given_up) == (1, MOST_WAITING, 2)
