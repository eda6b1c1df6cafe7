"""Flask and nothing else: what a request costs before anything is done."""

from __future__ import annotations

from flask import Flask, Response


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)

    @app.post("/predict")
    def predict() -> Response:
        return Response(b"{}", content_type="application/json")

    return app
