"""The model card, which the trainer writes beside `model.onnx` and the API checks before it serves the model."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lab.errors import LabError
from lab.problem import Column, Name, Share
from lab.record import Level, Value, is_number, is_within, level_faults, levels

# A model with a card of an earlier schema version is served, too. A card of version 1 states no promises, and one of
# version 2 has no categories.
SCHEMA_VERSION = 3
MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
# The largest allowed difference between a probability of the served model and the recorded one.
TOLERANCE = 1e-5
# Size limits of the two files, in bytes: each worker of the API holds both in memory.
CARD_BYTES, MODEL_BYTES = 2**19, 32 * 2**20
# Rows in the largest batch that the API accepts. A model is tried with nearly as many before it is served.
BATCH_ROWS = 10_000
# The model computes in float32. JSON parsers agree on integers up to 2**53 only.
FLOAT32_MAX, WHOLE_MAX = 3.4028234663852886e38, 2**53


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A column of the model's input, in order. Bounds are inclusive.

    The model's input for a category is the index of its level in `levels`, and for a boolean 0 or 1; `min` and `max`
    are then the bounds of that input.
    """

    name: Column
    label: str
    type: Literal["integer", "real", "category", "boolean"]
    min: float
    max: float
    nullable: bool
    levels: list[Level] = []


class Classes(msgspec.Struct, frozen=True, kw_only=True):
    negative: str
    positive: str


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and standard deviation over the outer folds of all repeats."""

    mean: float
    sd: float


class Promise(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The value of a metric that the served model is expected to reach, with its 95 % interval from `low` to `high`.

    With the method `counts`, `failures` of `rows` distinct rows failed: the median over the repeats, rounded up, at
    thresholds that were chosen without those rows. The interval is that of Clopper and Pearson. The value is the share
    of rows that did not fail, except for F1, which comes from the counts of all folds. With the method `folds`, the
    value is the mean over the outer folds, and the interval is that of the corrected resampled t-test.
    """

    value: float
    low: float
    high: float
    method: Literal["counts", "folds"]
    rows: Annotated[int, Meta(ge=0)]
    failures: Annotated[int, Meta(ge=0)] | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Logistic regression of the class on the logit of the out-of-fold probability.

    Slope 1 and intercept 0 are perfect; a slope below 1 means that the probabilities are too extreme.
    """

    slope: float
    intercept: float


class Operating(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the threshold on the out-of-fold probabilities that chose it, in cards of schema version 1."""

    threshold: Share
    recall: Share
    precision: Share
    specificity: Share


class Histogram(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A histogram: the share `shares[i]` of the values lies in [edges[i], edges[i+1]); the last bin is closed.

    For a category and a boolean, `shares[i]` is the share of `levels[i]`, and there are no edges. `missing` is the
    share of null. The shares and `missing` sum to 1. `counts` are the numbers of rows behind the shares, out of the
    card's `rows`; in schema version 1 there are none.
    """

    edges: list[float] = []
    levels: list[Level | bool] = []
    shares: list[Share]
    missing: Share
    counts: list[Annotated[int, Meta(ge=0)]] = []


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, with null for missing, and the probability of the positive class that the model must give for each row."""

    rows: list[list[Value | None]]
    probabilities: list[float]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate as params.yaml declares it, and the grid point that the search chose."""

    candidate: str
    estimator: str
    settings: dict[str, Any]
    grid: dict[str, list[Any]]
    best: dict[str, Any]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of the model. `git_dirty`: the checkout had changes that were not committed."""

    git_commit: str
    git_dirty: bool
    data_md5: str
    params_sha256: str
    code_sha256: str
    fingerprint: str
    run_id: str
    packages: dict[str, str]


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int
    problem: Name
    title: str
    features: Annotated[list[Feature], Meta(min_length=1)]
    classes: Classes
    threshold: Share
    metrics: dict[str, Spread]
    rows: Annotated[int, Meta(ge=0)] = 0
    prevalence: Share | None = None
    promises: dict[str, Promise] = {}
    calibration: Calibration | None = None
    operating: Operating | None = None
    feature_reference: dict[str, Histogram]
    score_reference: Histogram
    self_test: SelfTest
    recipe: Recipe
    lineage: Lineage
    params: dict[str, Any]
    model_sha256: str


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 of the declared estimator, settings and grid; the order of their keys does not matter."""
    declared = [recipe.estimator, recipe.settings, recipe.grid]
    return hashlib.sha256(msgspec.json.encode(declared, order="deterministic")).hexdigest()


def encode(card: Card) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def decode(text: bytes) -> Card:
    """Read a card; raise LabError when it is not one of this schema version, or contradicts itself."""
    check_size(CARD_FILE, text, CARD_BYTES)
    try:
        card = msgspec.json.decode(text, type=Card)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise LabError(f"the card is not valid: {error}", "train and promote again") from error
    if not 1 <= card.schema_version <= SCHEMA_VERSION:
        raise LabError(
            f"the card has schema version {card.schema_version}; this code reads 1 to {SCHEMA_VERSION}",
            "train again with this code, or run the code that wrote it",
        )
    for fault in _faults(card):
        raise LabError(f"the card is not valid: {fault}", "train and promote again")
    return card


def check_size(name: str, content: bytes, limit: int) -> None:
    """Raise LabError when the file is larger than the API accepts; `limit` is in bytes."""
    if len(content) > limit:
        raise LabError(
            f"{name} has {len(content) / 2**20:.1f} MB, and the API accepts {limit / 2**20:g} MB",
            "train a smaller model: fewer or shallower trees, for example",
        )


def check_hash(card: Card, model: bytes) -> None:
    """Raise LabError unless `model` has the SHA-256 that the card states."""
    digest = hashlib.sha256(model).hexdigest()
    if digest != card.model_sha256:
        raise LabError(
            f"{MODEL_FILE} has SHA-256 {digest[:12]}…, its card says {card.model_sha256[:12]}…",
            "the package was altered or cut short; promote a version again",
        )


def _faults(card: Card) -> Iterator[str]:
    names = [feature.name for feature in card.features]
    if len(set(names)) != len(names):
        yield "two features have the same name"
    for feature in card.features:
        yield from _bound_faults(feature)
    if card.classes.negative == card.classes.positive:
        yield "the two classes have the same name"
    if set(card.feature_reference) != set(names):
        yield "the reference distributions are not those of the features"
    values = {feature.name: [] if is_number(feature) else levels(feature) for feature in card.features}
    for name, histogram in {**card.feature_reference, "the score": card.score_reference}.items():
        shape = _histogram_faults(histogram, list(values.get(name, [])))
        faults = [*shape, *(_count_faults(card, histogram) if card.schema_version > 1 else ())]
        yield from (f"the reference distribution of {name} {fault}" for fault in faults)
    if card.schema_version > 1 and (not card.rows or card.prevalence is None or not card.promises):
        yield "it does not state the number of rows, the share of positives and the promises"
    for name, promise in card.promises.items():
        yield from (f"the promise of {name} {fault}" for fault in _promise_faults(promise))
    yield from _self_test_faults(card)


def _bound_faults(feature: Feature) -> Iterator[str]:
    low, high, whole = feature.min, feature.max, feature.type == "integer"
    if not is_number(feature):
        if feature.type == "category":
            yield from (f"{feature.name}: {fault}" for fault in level_faults(feature.levels))
        if (low, high) != (0, len(levels(feature)) - 1) or (feature.type == "boolean" and feature.levels):
            yield f"min and max of {feature.name} are not those of its levels"
    elif feature.levels:
        yield f"{feature.name} is a number and has levels"
    elif not low < high:
        yield f"min of {feature.name} is not below its max"
    elif max(-low, high) > (WHOLE_MAX if whole else FLOAT32_MAX):
        yield f"the bounds of {feature.name} are larger than the model can represent"
    elif whole and math.ceil(low) > math.floor(high):
        yield f"no whole number lies within the bounds of {feature.name}"


def _histogram_faults(histogram: Histogram, values: list[Level | bool]) -> Iterator[str]:
    """`values` are the levels of the feature, none for a number."""
    edges, shares = histogram.edges, histogram.shares
    if values:
        if edges or histogram.levels != values or len(shares) != len(values):
            yield "must have the levels of the feature, and a share for each"
    elif histogram.levels:
        yield "has levels, and the feature is a number"
    elif len(edges) != len(shares) + 1 or any(not low < high for low, high in itertools.pairwise(edges)):
        yield "must have ascending edges, one more than it has shares"
    if abs(sum(shares) + histogram.missing - 1) > TOLERANCE:
        yield "has shares that do not sum to 1"


def _count_faults(card: Card, histogram: Histogram) -> Iterator[str]:
    shares = [count / max(card.rows, 1) for count in histogram.counts]
    if len(shares) != len(histogram.shares) or any(
        abs(a - b) > TOLERANCE for a, b in zip(shares, histogram.shares, strict=True)
    ):
        yield f"has counts that are not its shares of {card.rows} rows"


def _promise_faults(promise: Promise) -> Iterator[str]:
    if not promise.low - TOLERANCE <= promise.value <= promise.high + TOLERANCE:
        yield "has a value outside its interval"
    if (promise.failures is None) != (promise.method == "folds") or (promise.failures or 0) > promise.rows:
        yield "must state at most as many failures as rows by the method counts, and none by the method folds"


def _self_test_faults(card: Card) -> Iterator[str]:
    rows, probabilities = card.self_test.rows, card.self_test.probabilities
    if not 1 <= len(rows) <= BATCH_ROWS or len(rows) != len(probabilities):
        yield f"the self-test must have 1 to {BATCH_ROWS} rows, and a probability for each"
    if any(not -TOLERANCE <= probability <= 1 + TOLERANCE for probability in probabilities):
        yield "a probability of the self-test is not within 0 and 1"
    for row in rows:
        if len(row) != len(card.features):
            yield f"a row of the self-test has {len(row)} values for {len(card.features)} features"
        for feature, value in zip(card.features, row, strict=False):
            if not is_within(feature, value):
                yield f"the self-test has {value} for {feature.name}, which its bounds do not allow"
