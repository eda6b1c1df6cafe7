"""Make responses, and choose the response for each failure."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response, current_app, request
from msgspec import UNSET, UnsetType
from werkzeug.exceptions import HTTPException

from api.access import NO_HOST, NO_KEY, NO_ROUTE, OTHER_CLIENT, OTHER_HOST
from api.answers import FieldError, Problem
from api.bodies import BUSY, LATE
from api.codec import InvalidError
from api.trace import trace_id
from lab.events import CLIENTS, NotRecordedError
from lab.package import ModelError

# The member of WSGI's `environ` that holds the names of the wrong fields, for the event.
FIELDS = "lab.fields"

JSON = "application/json"


class NoModelError(Exception):
    """No verified model is loaded; the message says why."""


def reply(value: Any, status: int = 200, content_type: str = JSON) -> Response:
    return Response(msgspec.json.encode(value), status, content_type=content_type)


def problem(status: int, title: str, detail: str, errors: list[FieldError] | UnsetType = UNSET) -> Response:
    """An RFC 9457 problem."""
    body = Problem("about:blank", title, status, detail, trace_id.get(), errors)
    return reply(body, status, "application/problem+json")


def refused(fault: str) -> Response:
    """The answer to a request that is refused before a view gets it; `fault` is a key of `_REFUSALS`."""
    answer = problem(*_REFUSALS[fault])
    if fault == NO_KEY:
        answer.headers["WWW-Authenticate"] = "ApiKey"
    if fault == BUSY:
        answer.headers["Retry-After"] = "5"
    if fault in (LATE, BUSY):
        answer.headers["Connection"] = "close"
    return answer


def broken() -> Response:
    return problem(500, "Internal Server Error", "this is a fault of the API: its log has the trace")


def cut() -> tuple[int, list[tuple[str, str]], bytes]:
    """The answer to a client that stopped in the middle of its body, because the client may still read."""
    answer = problem(400, "Bad Request", "the body ends in the middle: send it again, whole")
    return 400, [("Content-Type", answer.content_type), ("Connection", "close")], answer.get_data()


_REFUSALS = {
    NO_HOST: (400, "Bad Request", "send one Host header, with a name or an address"),
    OTHER_HOST: (
        421,
        "Misdirected Request",
        "the name in Host is not a name of this API: use 127.0.0.1 or localhost, or add the name to ALLOWED_HOSTS",
    ),
    NO_KEY: (401, "Unauthorized", "send the key in X-API-Key"),
    NO_ROUTE: (404, "Not Found", "this path does not exist: GET /openapi.json lists the paths"),
    OTHER_CLIENT: (
        400,
        "Bad Request",
        f"X-Client has a value that is not known: send {', '.join(CLIENTS)}, or no such header",
    ),
    LATE: (408, "Request Timeout", "the body did not arrive in time: send it again, without pauses"),
    BUSY: (503, "Busy", "the server has too many large requests at this moment: send it again later"),
}


def register(app: Flask) -> None:
    app.register_error_handler(InvalidError, _invalid)
    app.register_error_handler(NoModelError, lambda error: problem(503, "No model", str(error)))
    app.register_error_handler(NotRecordedError, lambda error: problem(503, "Not recorded", error.message))
    app.register_error_handler(ModelError, lambda error: problem(500, "Model failed", error.message))
    app.register_error_handler(HTTPException, _http_error)


def _invalid(error: InvalidError) -> Response:
    model = current_app.extensions["follower"].model
    parts = {part for path in error.faults for part in path}
    features = [feature.name for feature in model.card.features] if model else []
    request.environ[FIELDS] = [name for name in features if name in parts]
    if error.faults:
        return problem(422, "Invalid request", error.detail, errors=[FieldError(**each) for each in error.errors])
    return problem(400, "Invalid request", error.detail)


def _http_error(error: HTTPException) -> Response:
    answer = problem(error.code or 500, error.name, error.description or "")
    for name, value in error.get_headers():
        if name in ("Allow", "WWW-Authenticate", "Retry-After"):
            answer.headers[name] = value
    return answer
