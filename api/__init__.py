"""The API that serves the champion."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path

from flask import Flask, Request, Response
from werkzeug.routing import MapAdapter

from api import apm, middleware, responses
from api.access import Gate
from api.alerts import Alerts
from api.follower import Follower
from api.metrics import Metrics
from api.routes import Routes
from lab.events import Writer
from lab.registry import Registry
from lab.retention import Retention


class Api(Flask):
    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match the path alone: nothing here builds URLs, and reading the host for that is a fifth of Flask's time."""
        if request is None:
            return None
        return MapAdapter(self.url_map, "", "/", "", "http", request.path, request.method)

    def make_default_options_response(self) -> Response:
        """Answer 204 with the methods of the route in `Allow`. Flask's own answer is an empty HTML page."""
        answer = super().make_default_options_response()
        answer.status_code = 204
        del answer.headers["Content-Type"]
        return answer


def create_app(test_config: Mapping[str, str] | None = None) -> Flask:
    """Make the app from the environment, or from `test_config`.

    MLFLOW_TRACKING_URI and MODEL_NAME: the registry, and the model whose champion is served
    EVENTS_DIR: the folder of the event files
    EVENTS_DAYS and EVENTS_MB: the limits beyond which event files are deleted
    ENVIRONMENT: the lab or release that events and traces name, by default laptop
    KEEP_DIR: the folder in which the last good model is kept, and marks of the alerts that were written
    PACKAGE_DIR: the folder of the model that was built into the image, if any
    METRICS_DIR: the folder in which the workers put their counts together
    FOLLOW_SECONDS: the time between two looks at the champion alias
    API_KEY: the key that clients must send; empty for none
    ALLOWED_HOSTS: host names of this API besides those of the loopback interface
    """
    config = os.environ if test_config is None else test_config
    app = Api(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # it would redirect, to a URL
    environment = config.get("ENVIRONMENT", "laptop")
    events = Writer(Path(config["EVENTS_DIR"]), "api", retention=_retention(config))
    registry = Registry(config["MLFLOW_TRACKING_URI"], config["MODEL_NAME"])
    metrics = Metrics(Path(config["METRICS_DIR"]))
    package = Path(config["PACKAGE_DIR"]) if config.get("PACKAGE_DIR") else None
    keep = Path(config["KEEP_DIR"])
    alerts = Alerts(events, environment, keep, registry.model)
    follower = Follower(registry, keep, package, alerts, metrics)
    gate = Gate(config.get("API_KEY", ""), config.get("ALLOWED_HOSTS", ""))
    app.extensions |= {"follower": follower, "events": events, "gate": gate}
    Routes(follower, events, environment, metrics, keyed=bool(config.get("API_KEY"))).register(app)
    responses.register(app)
    if config.get("ELASTIC_APM_SERVER_URL"):
        apm.start(app, follower, environment)
    app.wsgi_app = middleware.wrap(app.wsgi_app, events, environment, metrics, gate)  # type: ignore[method-assign,assignment]
    metrics.start()
    follower.start(float(config.get("FOLLOW_SECONDS", "1")))
    # What is there now stays, and a request leaves next to no cycles: the collector need not run every tenth one.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    return app


def _retention(config: Mapping[str, str]) -> Retention:
    limits = {"days": config.get("EVENTS_DAYS"), "megabytes": config.get("EVENTS_MB")}
    return Retention(**{name: float(value) for name, value in limits.items() if value})
