"""Send alerts to the address in ALERT_WEBHOOK_URL.

Each alert is a POST with a JSON object. `text` is the alert as a sentence, so that a Slack-like receiver shows it. The
header X-Lab-Signature is `sha256=` and the HMAC of the body with the shared secret, by which the receiver knows the
sender. The header X-Lab-Alert is the alert's number: a receiver can get an alert twice, when its answer was lost.

An alert is sent again after a failure, with growing pauses, until `GIVE_UP_SECONDS` have passed. A receiver that hangs
costs `TIMEOUT` a try. The alerts that wait are in the store, and survive a kill.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable

import msgspec
import urllib3

log = logging.getLogger(__name__)
OUTBOX = "outbox"
TIMEOUT = urllib3.Timeout(connect=3, read=5)
FIRST_PAUSE, MOST_PAUSE = 1.0, 300.0
GIVE_UP_SECONDS = 86_400.0
# When more alerts wait, the oldest is given up.
MOST_WAITING = 100


class Message(msgspec.Struct):
    """An alert to send: its number, its body, when it was made, and when it is tried next (seconds since 1970)."""

    number: int
    body: dict[str, str | int | float | None]
    made: float
    next: float = 0.0
    tries: int = 0


class Outbox(msgspec.Struct):
    """The alerts that wait, and counts of those that were sent and given up. `fault` is the last failure."""

    waiting: list[Message] = []
    sent: int = 0
    given_up: int = 0
    fault: str = ""

    def add(self, message: Message) -> None:
        self.waiting.append(message)
        while len(self.waiting) > MOST_WAITING:
            self._give_up(self.waiting[0])

    def send(self, url: str, secret: str, clock: Callable[[], float] = time.time) -> bool:
        """Try each alert whose time has come, in order; say whether anything changed."""
        due = [message for message in self.waiting if message.next <= clock()]
        for message in due:
            fault = post(url, secret, message)
            if not fault:
                self.waiting.remove(message)
                self.sent += 1
                self.fault = ""
                continue
            self.fault = fault
            log.warning("alert %d is not delivered: %s", message.number, fault)
            message.next = clock() + min(FIRST_PAUSE * 2**message.tries, MOST_PAUSE)
            message.tries += 1
            if clock() - message.made > GIVE_UP_SECONDS:
                self._give_up(message)
        return bool(due)

    def _give_up(self, message: Message) -> None:
        self.waiting.remove(message)
        self.given_up += 1
        log.error("alert %d is given up after %d tries", message.number, message.tries)


def signature(secret: str, body: bytes) -> str:
    """The value of X-Lab-Signature (RFC 2104)."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def post(url: str, secret: str, message: Message) -> str:
    """Send one alert; give the reason when the receiver did not take it, without the URL, which may hold a token."""
    body = msgspec.json.encode(message.body)
    headers = {
        "Content-Type": "application/json",
        "X-Lab-Alert": str(message.number),
        "X-Lab-Signature": signature(secret, body),
    }
    try:
        with urllib3.PoolManager(retries=False) as pool:
            answer = pool.request("POST", url, body=body, headers=headers, timeout=TIMEOUT, preload_content=False)
            answer.close()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        return f"no answer ({type(error).__name__})"
    return "" if 200 <= answer.status < 300 else f"the receiver answered {answer.status}"
