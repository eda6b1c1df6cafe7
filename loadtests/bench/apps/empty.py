"""Flask with an empty handler, to measure the cost of a request without any work."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from api.server import Server


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    app.extensions["gate"] = lambda _environ: ""  # this app refuses no request
    app.extensions["close"] = lambda: None

    @app.post("/predict")
    def predict() -> Response:
        return Response(b"{}", content_type="application/json")

    return app


server = Server(create_app)


class Bare:
    """A handler without Flask, to measure the server alone."""

    async def __rsgi__(self, _scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, [("Content-Type", "application/json")], b"{}")


bare = Bare()
