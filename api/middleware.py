"""WSGI middleware for every request: access, trace, metrics, headers of the answer, and an event when it failed.

The module is plain WSGI because every prediction passes through it, and Flask's hooks would take ten times as long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any

from uuid_utils import uuid4, uuid7

from api.access import OTHER_CLIENT, ROUTES, Gate
from api.bodies import BODY, FAULT
from api.codec import MAX_RECORD, Body
from api.metrics import Metrics
from api.responses import FIELDS, broken, refused
from api.trace import trace_id
from lab.events import CLIENT, CLIENTS, UNKNOWN, NotRecordedError, Request, Writer

# The member of WSGI's `environ` that holds the time at which the request began, in ns.
BEGUN = "lab.begun"
# The member that says where the request comes from: a value of `source` in `lab.events`.
SOURCE = "lab.source"

# The most bytes of a body. A record of a hundred features fits into the first limit, a batch of ten thousand records
# into the second.
LIMITS = {"/predict": MAX_RECORD, "/predict/batch": 16 * 2**20, "/feedback": 64 * 1024}
_SOURCES: dict[str | None, str] = {None: CLIENT, **{name: name for name in CLIENTS}}
_PLAIN = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]
# The headers of OWASP's REST cheat sheet. Those for older browsers and for TLS belong to a load balancer.
_JSON = [*_PLAIN, ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")]
# Swagger UI draws with inline styles and images; it runs no inline script.
_DOCS = [
    *_PLAIN,
    (
        "Content-Security-Policy",
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    ),
]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
log = logging.getLogger(__name__)


def wrap(wsgi: Wsgi, events: Writer, environment: str, metrics: Metrics, gate: Gate) -> Wsgi:
    """Wrap the app in everything that this module adds to a request.

    Under a server with threads, only the reading of bodies runs in parallel. The rest of each request runs under a
    lock, because it is short, and thread switches in the middle of it cost a fifth of the throughput.
    """
    turn = threading.Lock()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_time = environ.setdefault(BEGUN, perf_counter_ns())
        path = environ["PATH_INFO"]
        trace_id.set(_trace(environ.get("HTTP_TRACEPARENT", "")))
        status_code = "500"

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status_code
            status_code = status[:3]
            return start_response(status, headers + (_DOCS if path.startswith("/docs") else _JSON), exc_info)

        source = environ[SOURCE] = _SOURCES.get(environ.get("HTTP_X_CLIENT"), UNKNOWN)
        fault = gate(environ) or environ.get(FAULT)
        # The events of these requests state the source, and a request of unknown source must not count as a patient.
        if source == UNKNOWN and not fault and path in LIMITS:
            fault = OTHER_CLIENT
        if not fault and BODY not in environ:
            environ[BODY] = _read(environ, LIMITS.get(path, 0))
        with turn:
            try:
                body = (refused(fault) if fault else wsgi)(environ, start)
            except Exception:  # Flask does not catch every exception, and every request must be recorded as an event
                log.exception("a request failed")
                body = broken()(environ, start)
            route = path if path in ROUTES else "other"
            duration = perf_counter_ns() - start_time
            metrics.request(route, status_code, duration)
        if status_code >= "400":
            _report(events, environment, environ, route, int(status_code), duration)
        return body

    return app


def _read(environ: dict[str, Any], limit: int) -> Body | None:
    """The body; None if it is longer than `limit`."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit() and int(length) > limit:
        return None
    body: bytes = environ["wsgi.input"].read(int(length) if length.isdigit() else limit + 1)
    return body if len(body) <= limit else None


def _trace(parent: str) -> str:
    """The trace that the caller's `traceparent` (W3C Trace Context) names, else a new one."""
    parts = parent.split("-")
    if len(parts) >= 4 and len(parts[1]) == 32 and not parts[1].strip("0123456789abcdef") and parts[1].strip("0"):
        return parts[1]
    return str(uuid4().hex)


def _report(events: Writer, environment: str, environ: dict[str, Any], route: str, status: int, duration: int) -> None:
    event = Request(
        timestamp=datetime.now(UTC),
        id=str(uuid7()),
        service="api",
        environment=environment,
        trace_id=trace_id.get(),
        duration=duration,
        method=environ["REQUEST_METHOD"][:20],
        route=route,
        status=status,
        source=environ[SOURCE],
        fields=environ.get(FIELDS, []),
    )
    try:
        events.write([event])
    except NotRecordedError as error:  # nothing was acknowledged
        log.warning("%s", error.message)
