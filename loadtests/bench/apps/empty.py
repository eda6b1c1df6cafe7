"""Flask and nothing else: what a request costs before anything is done."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from api.server import Server


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    app.extensions["gate"] = lambda _environ: ""  # nobody is refused
    app.extensions["close"] = lambda: None

    @app.post("/predict")
    def predict() -> Response:
        return Response(b"{}", content_type="application/json")

    return app


server = Server(create_app)


class Bare:
    """Not even Flask: the server alone."""

    async def __rsgi__(self, _scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, [("Content-Type", "application/json")], b"{}")


bare = Bare()
