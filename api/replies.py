"""What an answer looks like, and which answer a failure is."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from api.codec import InvalidError
from api.environ import FIELDS, LATE
from api.trace import trace_id
from lab.events import NotRecordedError
from lab.package import ModelError

JSON = "application/json"


class NoModelError(Exception):
    """No verified model is loaded; the message says why."""


def reply(value: Any, status: int = 200, content_type: str = JSON) -> Response:
    return Response(msgspec.json.encode(value), status, content_type=content_type)


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """An RFC 9457 problem."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return reply({**body, "trace_id": trace_id.get()}, status, "application/problem+json")


def unauthorized() -> Response:
    answer = problem(401, "Unauthorized", "send the key in X-API-Key")
    answer.headers["WWW-Authenticate"] = "ApiKey"
    return answer


def no_body(fault: str) -> Response:
    """The answer to a request whose body the server could not wait for."""
    if fault == LATE:
        answer = problem(408, "Request Timeout", "the body did not come in time: send it again, at once")
    else:
        answer = problem(503, "Busy", "too many bodies are on their way: send it again in a while")
        answer.headers["Retry-After"] = "5"
    answer.headers["Connection"] = "close"
    return answer


def register(app: Flask) -> None:
    app.register_error_handler(InvalidError, _invalid)
    app.register_error_handler(NoModelError, lambda error: problem(503, "No model", str(error)))
    app.register_error_handler(NotRecordedError, lambda error: problem(503, "Not recorded", error.message))
    app.register_error_handler(ModelError, lambda error: problem(500, "Model failed", error.message))
    app.register_error_handler(HTTPException, _http_error)


def _invalid(error: InvalidError) -> Response:
    model = current_app.extensions["follower"].model
    named = {part for path in error.faults for part in path}
    known = [feature.name for feature in model.card.features] if model else []
    request.environ[FIELDS] = [name for name in known if name in named]
    if error.faults:
        return problem(422, "Invalid request", error.detail, errors=error.errors)
    return problem(400, "Invalid request", error.detail)


def _http_error(error: HTTPException) -> Response:
    answer = problem(error.code or 500, error.name, error.description or "")
    for name, value in error.get_headers():
        if name in ("Allow", "WWW-Authenticate", "Retry-After"):
            answer.headers[name] = value
    return answer
