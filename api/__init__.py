"""The API that serves the champion."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flask import Flask

from api.model import Follower
from api.routes import routes
from lab.registry import Registry


def create_app(test_config: Mapping[str, str] | None = None) -> Flask:
    """Make the app; it follows the champion of MODEL_NAME in the registry at MLFLOW_TRACKING_URI."""
    config = os.environ if test_config is None else test_config
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 1_000_000
    follower = Follower(Registry(config["MLFLOW_TRACKING_URI"], config["MODEL_NAME"]))
    app.extensions["follower"] = follower
    app.register_blueprint(routes)
    follower.start()
    return app
