"""The routes of the API."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException

from api.codec import InvalidError, answer, problem, read_record, reply
from api.model import Follower, Model

routes = Blueprint("routes", __name__)


class NoModelError(Exception):
    """No verified model is loaded; the message says why."""


def _follower() -> Follower:
    follower: Follower = current_app.extensions["follower"]
    return follower


def _model() -> Model:
    follower = _follower()
    model = follower.model
    if model is None:
        raise NoModelError(follower.fault)
    return model


@routes.post("/predict")
def predict() -> Response:
    model = _model()
    row = read_record(model.card.features, request.get_data(cache=False))
    return answer(model, float(model.probabilities(row)[0]))


@routes.get("/model")
def describe() -> Response:
    model = _model()
    return reply({"name": model.card.problem, "version": model.version, "card": model.card})


@routes.get("/healthz")
def healthz() -> Response:
    """Alive: this says nothing of a model."""
    return reply({"status": "alive"})


@routes.get("/readyz")
def readyz() -> Response:
    """Has a verified model; `registry` says what keeps it from following, if anything."""
    model = _model()
    followed = _follower().fault or "followed"
    return reply({"status": "ready", "name": model.card.problem, "version": model.version, "registry": followed})


@routes.app_errorhandler(InvalidError)
def refuse(error: InvalidError) -> Response:
    return problem(422 if error.errors else 400, "Invalid request", error.detail, error.errors)


@routes.app_errorhandler(NoModelError)
def not_ready(error: NoModelError) -> Response:
    return problem(503, "No model", str(error))


@routes.app_errorhandler(HTTPException)
def http_error(error: HTTPException) -> Response:
    return problem(error.code or 500, error.name, error.description or "")
