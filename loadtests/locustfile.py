"""The behaviour of clients: single predictions, batches, and the true classes of earlier predictions.

Users do not wait between requests, so 20 users are 20 connections that are always busy. The figures are therefore those
of the API at full load on this machine, while Locust itself uses one core.
"""

from __future__ import annotations

import os
import random
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from locust import FastHttpUser, constant, events, task
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment

from lab import settings
from loadtests import rows
from loadtests.slo import Figures, Route

BATCH = 50
# The number of a user's latest predictions that may get feedback.
REMEMBERED = 200
VALUES = settings.load()
ROWS = rows.load(VALUES)[1]
# The bodies are encoded once, because Locust itself needs a core.
RECORDS = [(msgspec.json.encode(row.record), row.label) for row in ROWS]
HEADERS = {"Content-Type": "application/json", "X-Client": "loadtest"} | (
    {"X-API-Key": VALUES.api_key} if VALUES.api_key else {}
)


@events.quitting.add_listener
def write(environment: Environment, **_: Any) -> None:
    """Write the final figures for loadtests/run.py, because Locust's CSV files lack the last second."""
    if not (target := os.environ.get("LOAD_FIGURES")):
        return
    figures = {
        entry.name: Route(entry.num_requests, entry.num_failures, entry.get_response_time_percentile(0.99))
        for entry in environment.stats.entries.values()
    }
    raised = sum(each["count"] for each in environment.runner.exceptions.values())
    Path(target).write_bytes(msgspec.json.encode(Figures(figures, raised)))


class Client(FastHttpUser):
    """A client with a connection of its own."""

    host = VALUES.api_url
    wait_time = constant(0)
    connection_timeout = 5.0
    network_timeout = 30.0

    def on_start(self) -> None:
        # Pairs of a prediction's id and the true class of its row.
        self.predicted: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)

    @task(20)
    def predict(self) -> None:
        body, label = random.choice(RECORDS)  # noqa: S311
        answer = self._post("/predict", body)
        if answer is not None and "id" in answer:
            self.predicted.append((answer["id"], label))

    @task(1)
    def predict_batch(self) -> None:
        records = random.choices(RECORDS, k=BATCH)  # noqa: S311
        answer = self._post("/predict/batch", b'{"instances":[' + b",".join(body for body, _ in records) + b"]}")
        if answer is not None:
            pairs = zip(answer["predictions"], records, strict=True)
            self.predicted.extend((prediction["id"], label) for prediction, (_, label) in pairs)

    @task(4)
    def feedback(self) -> None:
        if self.predicted:  # at first there are no predictions to report on
            prediction_id, label = self.predicted.popleft()
            self._post("/feedback", msgspec.json.encode({"prediction_id": prediction_id, "label": label}), 202)

    def _post(self, path: str, body: bytes, status: int = 200) -> dict[str, Any] | None:
        """Post, and return the decoded answer; anything but JSON with `status` counts as failed and gives None."""
        response: FastResponse
        with self.client.post(path, data=body, headers=HEADERS, catch_response=True) as response:
            if response.status_code != status:
                response.failure(f"status {response.status_code}, not {status}: {(response.text or '')[:200]}")
                return None
            try:
                return msgspec.json.decode(response.content, type=dict)
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
                response.failure(f"the answer is not JSON: {error}")
                return None
