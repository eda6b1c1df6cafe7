"""The routes of the API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import flask_swagger_ui
import msgspec
from flask import Flask, Response, request, send_from_directory
from uuid_utils import uuid7
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from api import answers, codec, middleware, openapi
from api.bodies import BODY
from api.codec import Body, Records
from api.follower import Follower
from api.metrics import Metrics
from api.middleware import BEGUN, SOURCE
from api.model import Model
from api.responses import JSON, NoModelError, reply
from api.trace import trace_id
from lab.events import Feedback, Prediction, Writer
from lab.package import ModelError

DOCS = Path(__file__).parent / "docs"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"


@dataclass(frozen=True)
class Routes:
    """The views. Model and events are attributes, because access by Flask's proxies takes longer than the model."""

    follower: Follower
    events: Writer
    environment: str
    counts: Metrics
    keyed: bool

    def register(self, app: Flask) -> None:
        posts = {"/predict": self.predict, "/predict/batch": self.predict_batch, "/feedback": self.feedback}
        gets: dict[str, Callable[..., Response]] = {
            "/model": self.model,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/docs": self.docs,
            "/docs/<name>": self.docs_file,
        }
        for path, post in posts.items():
            app.add_url_rule(path, view_func=post, endpoint=path, methods=["POST"])
        for path, get in gets.items():
            app.add_url_rule(path, view_func=get, endpoint=path)

    def predict(self) -> Response:
        model, environ = self._model(), request.environ
        event = self._answer(model, model.codec.one(_body(environ)), environ)[0]
        return reply(answers.Prediction(event.id, event.label, event.probability, model.card.threshold, _served(model)))

    def predict_batch(self) -> Response:
        model, environ = self._model(), request.environ
        events = self._answer(model, model.codec.many(_body(environ)), environ)
        predictions = [answers.Classified(event.id, event.label, event.probability) for event in events]
        return reply(answers.Predictions(predictions, model.card.threshold, _served(model)))

    def feedback(self) -> Response:
        """Record the true class. The monitor handles feedback that is repeated, late or contradictory."""
        prediction_id, label = codec.feedback(self._model().card, _body(request.environ))
        event = Feedback(
            timestamp=datetime.now(UTC),
            id=str(uuid7()),
            service="api",
            environment=self.environment,
            trace_id=trace_id.get(),
            prediction_id=prediction_id,
            source=request.environ[SOURCE],
            label=label,
        )
        self.events.write([event])
        return reply(answers.Accepted(event.id, prediction_id), 202)

    def model(self) -> Response:
        """The card without its self-test, because the rows of the self-test are personal data."""
        model = self._model()
        card = msgspec.to_builtins(model.card)
        del card["self_test"]
        return reply(answers.Model(model.card.problem, model.version, card))

    def healthz(self) -> Response:
        """The process is alive, with or without a model."""
        return reply(answers.Status("alive"))

    def readyz(self) -> Response:
        """The API has a verified model.

        `registry` has the reason when the API cannot follow the registry, and `refused` the version that was not sound.
        `look_age_seconds` is the time since the last look at the registry; a large value means that the API is stuck.
        """
        model = self._model()
        follower = self.follower
        return reply(
            answers.Ready(
                status="ready",
                name=model.card.problem,
                version=model.version,
                registry=follower.fault or "followed",
                refused=follower.refused,
                look_age_seconds=follower.look_age,
            )
        )

    def metrics(self) -> Response:
        return Response(self.counts.exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")

    def openapi(self) -> Response:
        return reply(openapi.document(self._model(), keyed=self.keyed))

    def docs(self) -> Response:
        return _file(DOCS, "index.html")

    def docs_file(self, name: str) -> Response:
        """The lab's start.js, and Swagger UI from its package, so that no file comes from the internet."""
        return _file(DOCS if name == "start.js" else SWAGGER_UI, name)

    def _model(self) -> Model:
        if (model := self.follower.model) is None:
            raise NoModelError(self.follower.fault)
        return model

    def _answer(self, model: Model, records: Records, environ: dict[str, Any]) -> list[Prediction]:
        """Classify the records, and write the predictions to disk before they are returned.

        Raises NotRecordedError when they cannot be written, and ModelError when a record gets no probability; the
        other records get no answer then.
        """
        try:
            probabilities = model.probabilities(records.rows)
        except ModelError as error:
            self.follower.failed(model, error.message)
            raise
        name, threshold, version, trace = model.card.problem, model.card.threshold, str(model.version), trace_id.get()
        now, duration = datetime.now(UTC), perf_counter_ns() - environ[BEGUN]
        source, environment = environ[SOURCE], self.environment
        predictions = [
            Prediction(
                timestamp=now,
                id=str(uuid7()),
                service="api",
                environment=environment,
                trace_id=trace,
                duration=duration,
                model_name=name,
                model_version=version,
                source=source,
                label=model.label(probability),
                probability=probability,
                threshold=threshold,
                features=features,
            )
            for probability, features in zip(probabilities, records.features, strict=True)
        ]
        self.events.write(predictions)
        self.counts.predicted(version, [each.label for each in predictions])
        return predictions


def _served(model: Model) -> answers.Served:
    return answers.Served(model.card.problem, model.version)


def _file(folder: Path, name: str) -> Response:
    """Send the whole file. Conditional requests are not supported, because answers may not be cached."""
    return send_from_directory(folder, name, conditional=False, etag=False, last_modified=None)


def _body(environ: dict[str, Any]) -> Body:
    if environ.get("CONTENT_TYPE") != JSON and request.mimetype != JSON:
        raise UnsupportedMediaType(f"send {JSON}")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
    body: Body | None = environ[BODY]
    if body is None:
        raise RequestEntityTooLarge(f"this body may have {middleware.LIMITS[environ['PATH_INFO']]} bytes")
    return body
