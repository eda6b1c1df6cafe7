"""The model card: what the trainer writes beside `model.onnx` and the API checks before it serves."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from lab.errors import LabError

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
# How far a probability of the served model may lie from the one the trainer recorded.
TOLERANCE = 1e-5


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the model's input, in order. Bounds are inclusive."""

    name: str
    label: str
    type: Literal["integer", "real"]
    min: float
    max: float
    nullable: bool


class Classes(msgspec.Struct, frozen=True, kw_only=True):
    negative: str
    positive: str


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and standard deviation over the outer folds of all repeats."""

    mean: float
    sd: float


class Operating(msgspec.Struct, frozen=True, kw_only=True):
    """What the threshold does to the out-of-fold probabilities (it was chosen on the same ones)."""

    threshold: float
    recall: float
    precision: float
    specificity: float


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """`shares[i]` of the values lie in [edges[i], edges[i+1]), the last bin closed; `missing` are null.

    The shares and `missing` sum to 1.
    """

    edges: list[float]
    shares: list[float]
    missing: float


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Rows (null is missing) and the positive class's probability the model must give for each."""

    rows: list[list[float | None]]
    probabilities: list[float]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted: the candidate as declared, and the grid point the search picked."""

    candidate: str
    estimator: str
    settings: dict[str, Any]
    grid: dict[str, list[Any]]
    best: dict[str, Any]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model comes from. `git_dirty`: the checkout had changes that were not committed."""

    git_commit: str
    git_dirty: bool
    data_md5: str
    params_sha256: str
    code_sha256: str
    fingerprint: str
    run_id: str
    packages: dict[str, str]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int
    problem: str
    title: str
    features: list[Feature]
    classes: Classes
    threshold: float
    metrics: dict[str, Spread]
    operating: Operating
    feature_reference: dict[str, Histogram]
    score_reference: Histogram
    self_test: SelfTest
    recipe: Recipe
    lineage: Lineage
    params: dict[str, Any]
    model_sha256: str


def encode(card: Card) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def decode(text: bytes) -> Card:
    """Read a card; raise LabError when it is not one of this schema version."""
    try:
        card = msgspec.json.decode(text, type=Card)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise LabError(f"the card is not valid: {error}", "train and promote again") from error
    if card.schema_version != SCHEMA_VERSION:
        raise LabError(
            f"the card has schema version {card.schema_version}; this code reads {SCHEMA_VERSION}",
            "train again with this code, or run the code that wrote it",
        )
    if len(card.self_test.rows) != len(card.self_test.probabilities) or not card.self_test.rows:
        raise LabError("the card has no usable self-test", "train and promote again")
    return card


def check_hash(card: Card, model: bytes) -> None:
    """Raise LabError unless `model` is the very file the card was written for."""
    found = hashlib.sha256(model).hexdigest()
    if found != card.model_sha256:
        raise LabError(
            f"{MODEL_FILE} has SHA-256 {found[:12]}…, its card says {card.model_sha256[:12]}…",
            "the package was altered or cut short; promote a version again",
        )
