"""The dashboard's requests to the API."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from lab import http
from lab.record import Value


def model() -> dict[str, Any]:
    """Name, version and card of the model that is served; raise LabError when there is none."""
    answer: dict[str, Any] = http.get_json(f"{os.environ['API_URL']}/model", timeout=5, key=_key())
    return answer


def predict(record: dict[str, Value | None]) -> dict[str, Any]:
    """The API's answer for one record; raise LabError when it refuses or does not answer."""
    url = f"{os.environ['API_URL']}/predict"
    answer: dict[str, Any] = msgspec.json.decode(
        http.request("POST", url, json=record, timeout=5, key=_key(), client="dashboard")
    )
    return answer


def _key() -> str:
    return os.environ.get("API_KEY", "")
