"""The API that serves the champion."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from flask import Flask, Request, Response
from werkzeug.routing import MapAdapter

from api import apm, middleware, responses
from api.access import Gate
from api.alerts import Alerts
from api.follower import Follower
from api.metrics import Metrics
from api.routes import Routes
from lab.errors import LabError
from lab.events import Writer
from lab.registry import Registry
from lab.retention import Retention

# The variables that configure an app: those with a default, then those without.
DEFAULTS = {
    "ENVIRONMENT": "laptop",
    "EVENTS_DAYS": Retention().days,
    "EVENTS_MB": Retention().megabytes,
    "PACKAGE_DIR": "",
    "FOLLOW_SECONDS": "1",
    "API_KEY": "",
    "ALLOWED_HOSTS": "",
    "ELASTIC_APM_SERVER_URL": "",
}
REQUIRED = ("MLFLOW_TRACKING_URI", "MODEL_NAME", "EVENTS_DIR", "KEEP_DIR", "METRICS_DIR")


class Api(Flask):
    """The Flask app, and what `create_app` started beside it."""

    resources: ExitStack

    def close(self) -> None:
        """End the threads, close the event file and send the last traces. The app must get no request afterwards."""
        self.resources.close()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match the path alone. The host is only needed to build URLs, and to read it takes a fifth of Flask's time."""
        if request is None:
            return None
        return MapAdapter(self.url_map, "", "/", "", "http", request.path, request.method)

    def make_default_options_response(self) -> Response:
        """Answer 204 with the methods of the route in `Allow`. Flask's own answer is an empty HTML page."""
        answer = super().make_default_options_response()
        answer.status_code = 204
        del answer.headers["Content-Type"]
        return answer


def create_app(test_config: Mapping[str, str] | None = None) -> Api:
    """Make the app with its configuration in `app.config`: from the environment, or from `test_config`.

    MLFLOW_TRACKING_URI and MODEL_NAME: the registry, and the model whose champion is served
    EVENTS_DIR: the folder of the event files
    EVENTS_DAYS and EVENTS_MB: the limits beyond which event files are deleted
    ENVIRONMENT: the lab or release that events and traces name
    KEEP_DIR: the folder of the last good model, and of the files that mark written alerts
    PACKAGE_DIR: the folder of the model that was built into the image, if any
    METRICS_DIR: the folder in which the workers share their counts
    FOLLOW_SECONDS: the time between two looks at the champion alias
    API_KEY: the key that clients must send; empty for none
    ALLOWED_HOSTS: host names of this API besides those of the loopback interface
    ELASTIC_APM_SERVER_URL: the APM Server for traces; empty for none

    Raises LabError when a variable is missing or has a wrong value. Call `close` on the app to end its threads.
    """
    app = Api(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # Flask would redirect from a path with two slashes
    app.resources = ExitStack()
    _configure(app, os.environ if test_config is None else test_config)
    config, keep = app.config, Path(app.config["KEEP_DIR"])
    events = Writer(Path(config["EVENTS_DIR"]), "api", retention=Retention(config["EVENTS_DAYS"], config["EVENTS_MB"]))
    app.resources.callback(events.close)
    registry = Registry(config["MLFLOW_TRACKING_URI"], config["MODEL_NAME"])
    metrics = Metrics(Path(config["METRICS_DIR"]))
    package = Path(config["PACKAGE_DIR"]) if config["PACKAGE_DIR"] else None
    alerts = Alerts(events, config["ENVIRONMENT"], keep, registry.model)
    follower = Follower(registry, keep, package, alerts, metrics)
    gate = Gate(config["API_KEY"], config["ALLOWED_HOSTS"])
    app.extensions |= {"follower": follower, "events": events, "gate": gate, "close": app.close}
    Routes(follower, events, config["ENVIRONMENT"], metrics, keyed=bool(config["API_KEY"])).register(app)
    responses.register(app)
    if config["ELASTIC_APM_SERVER_URL"]:
        app.resources.callback(apm.start(app, follower))
    app.wsgi_app = middleware.wrap(app.wsgi_app, events, config["ENVIRONMENT"], metrics, gate)  # type: ignore[method-assign,assignment]
    metrics.start()
    app.resources.callback(metrics.stop)
    follower.start(config["FOLLOW_SECONDS"])
    app.resources.callback(follower.stop)
    # The garbage collector can run seldom: the present objects stay, and a request leaves hardly any reference cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    return app


def _configure(app: Flask, variables: Mapping[str, str]) -> None:
    """Put the variables into `app.config`, with numbers as float."""
    app.config.from_mapping(DEFAULTS)
    app.config.from_mapping({name: variables[name] for name in (*DEFAULTS, *REQUIRED) if variables.get(name)})
    for name in REQUIRED:
        if name not in app.config:
            raise LabError(f"the API needs {name}, which is not set", "`make up` sets it; api/__init__.py explains it")
    for name in ("EVENTS_DAYS", "EVENTS_MB", "FOLLOW_SECONDS"):
        try:
            app.config[name] = float(app.config[name])
        except ValueError as error:
            raise LabError(f"{name} is {app.config[name]!r}, which is not a number", f"correct {name}") from error
