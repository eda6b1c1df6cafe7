"""The OpenAPI document of a model; names and bounds of the features come from its card."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from api import answers
from api.codec import MAX_INSTANCES
from api.model import Model
from lab.card import Card, Feature
from lab.events import CLIENTS
from lab.record import json_schema

PROBLEM = "application/problem+json"


def document(model: Model, *, keyed: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document for `model`; with `keyed`, the API asks for a key."""
    card = model.card
    specification: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": card.title,
            "version": str(model.version),
            "description": f"Served: {card.problem} version {model.version}, {card.recipe.candidate}. "
            f"From a probability of {card.threshold:.4g} on the answer is {card.classes.positive!r}.",
        },
        "paths": _paths(),
        "components": {"schemas": _schemas(card)},
    }
    if keyed:
        specification["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        }
        specification["security"] = [{"key": []}]
        for path in ("/healthz", "/readyz", "/openapi.json"):
            specification["paths"][path]["get"]["security"] = []
        for item in specification["paths"].values():
            for operation in item.values():
                if operation.get("security") != []:
                    operation["responses"]["401"] = _problem("The key is missing or wrong.")
    return specification


def _paths() -> dict[str, Any]:
    refusals = {
        "400": _problem("The body is not JSON of the right form, or X-Client has an unknown value."),
        "413": _problem("The body is too large."),
        "415": _problem("The body is not sent as application/json, or has a Content-Encoding."),
        "422": _problem("Fields are wrong; `errors` names every one, up to 100."),
        "500": _problem(
            "The model gives no probability for a record. A batch with such a record gets no predictions at all."
        ),
        "503": _problem("There is no model yet, or the answer cannot be recorded."),
    }
    reported = {status: refusal for status, refusal in refusals.items() if status != "500"}
    unready = {"503": _problem("There is no model yet.")}
    return {
        "/predict": {"post": _post("Classify one record.", "Record", "200", "Prediction", refusals)},
        "/predict/batch": {
            "post": _post(f"Classify up to {MAX_INSTANCES} records.", "Batch", "200", "Predictions", refusals)
        },
        "/feedback": {"post": _post("Report the true class of a prediction.", "Feedback", "202", "Accepted", reported)},
        "/model": {"get": _get("The served model and its card, without the rows of its self-test.", "Model", unready)},
        "/healthz": {"get": _get("Alive, with or without a model.", "Status", {})},
        "/readyz": {"get": _get("Has a verified model.", "Ready", unready)},
        "/metrics": {
            "get": {
                "summary": "Metrics in Prometheus's text format.",
                "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": {"get": _get("This document.", "Any", unready)},
    }


def _post(summary: str, body: str, status: str, answer: str, refusals: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": [
            {
                "name": "X-Client",
                "in": "header",
                "required": False,
                "description": "Where the request comes from. A client that sends patients leaves it out.",
                "schema": {"enum": list(CLIENTS)},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": {status: _json("Done.", answer), **refusals},
    }


def _get(summary: str, answer: str, refusals: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _json("Done.", answer), **refusals}}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM: {"schema": _ref("Problem")}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(card: Card) -> dict[str, Any]:
    """The schemas of requests, which depend on the card, and those of answers, from the types in api/answers.py."""
    classes = {"enum": [card.classes.negative, card.classes.positive]}
    _, schemas = msgspec.json.schema_components(answers.TYPES, ref_template="#/components/schemas/{name}")
    for name in ("Prediction", "Classified"):
        schemas[name]["properties"]["label"] = classes
    identifier = {"type": "string", "format": "uuid"}
    instances = {"type": "array", "minItems": 1, "maxItems": MAX_INSTANCES, "items": _ref("Record")}
    return {
        "Record": _object(
            {feature.name: _feature(feature) for feature in card.features},
            optional=[feature.name for feature in card.features if feature.nullable],
        ),
        "Batch": _object({"instances": instances}),
        "Feedback": _object({"prediction_id": identifier, "label": classes}),
        **schemas,
        "Any": {"type": "object"},
    }


def _object(properties: dict[str, Any], optional: Collection[str] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _feature(feature: Feature) -> dict[str, Any]:
    return {"title": feature.label, **json_schema(feature)}
