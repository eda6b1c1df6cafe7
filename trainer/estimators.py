"""Make the estimators that params.yaml declares, and place the scaler.

A setting of the form `{estimator: import.path, settings: {…}}` is an estimator itself. A mapping of names to such
values, as `estimators` of a VotingClassifier, is a list of named estimators.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from lab.errors import LabError
from lab.record import Feature
from trainer.encoding import preparation

Settings = dict[str, Any]

# Trees need no scaling. Scaling could even change predictions: a split may lie on a value, and ONNX rounds a scaled
# value to float32, so that the value could take the other branch.
TREES = frozenset(
    {
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LGBMClassifier",
        "XGBClassifier",
    }
)
# Ensembles of trees, unless another estimator is given.
TREES_BY_DEFAULT = frozenset({"AdaBoostClassifier", "BaggingClassifier"})
# Settings with which a package gives the same sums on every machine, and LightGBM prints nothing. LightGBM otherwise
# measures which of its two ways to sum is quicker, and takes that.
FIXED: dict[str, Settings] = {
    "lightgbm": {"n_jobs": 1, "verbosity": -1, "deterministic": True, "force_col_wise": True},
    "xgboost": {"n_jobs": 1},
}


def make_estimator(path: str, settings: Settings, seed: int) -> BaseEstimator:
    """The estimator at an import path with its settings, not fitted.

    `random_state` is `seed` where the estimator has one and the settings do not give it, also in nested estimators.
    Raises LabError when one of them cannot be made, or when the estimator would give no probabilities.
    """
    estimator = _make(path, settings, seed)
    if not hasattr(estimator, "predict_proba"):
        vote = path.endswith(".VotingClassifier")
        raise LabError(
            f"{path} gives no probabilities",
            "add to its settings: voting: soft" if vote else "take a scikit-learn classifier with predict_proba",
        )
    return estimator


def declared(path: str, settings: Settings) -> Iterator[tuple[str, Settings]]:
    """The import path and the settings of an estimator and of all that its settings declare, at any depth."""
    yield path, settings
    for value in settings.values():
        for member in value.values() if _is_group(value) else [value]:
            if _is_declaration(member):
                yield from declared(member["estimator"], member.get("settings", {}))


def children(estimator: BaseEstimator) -> dict[str, BaseEstimator]:
    """The estimators that are given to an estimator directly, by the names that its `set_params` takes."""
    parameters = estimator.get_params(deep=False)
    members = [pair for pair in parameters.pop("estimators", []) if isinstance(pair, (tuple, list))]
    return {name: each for name, each in [*parameters.items(), *members] if isinstance(each, BaseEstimator)}


def nested(estimator: BaseEstimator) -> Iterator[BaseEstimator]:
    """The estimator and those in it, at any depth."""
    yield estimator
    for child in children(estimator).values():
        yield from nested(child)


def pipeline(estimator: BaseEstimator, features: Sequence[Feature] = ()) -> Pipeline:
    """The preparation of the rows (`trainer.encoding`) and the estimator as the step `model`, not fitted.

    Numbers are scaled unless the estimator has trees. In an ensemble of trees and others, a scaler stands before each
    of the others, in a pipeline with a step `model`.
    """
    last = _scaled(estimator)
    return Pipeline([*preparation(features, scale=len(last) > 1), last[-1]])


def _scaled(estimator: BaseEstimator) -> list[tuple[str, BaseEstimator]]:
    if not _has_trees(estimator):
        return [("scale", StandardScaler()), ("model", estimator)]
    for name, child in _on_features(estimator).items():
        scaled = _scaled(child)
        estimator.set_params(**{name: Pipeline(scaled) if len(scaled) > 1 else child})
    return [("model", estimator)]


def _make(path: str, settings: Settings, seed: int) -> BaseEstimator:
    module, _, attribute = path.rpartition(".")
    arguments = dict(FIXED.get(path.partition(".")[0], {}))
    for key, value in settings.items():
        arguments[key] = _argument(key, value, seed)
    try:
        estimator = getattr(importlib.import_module(module), attribute)(**arguments)
    except OSError as error:  # LightGBM's wheel does not hold the library for threads that it needs
        raise LabError(
            f"cannot make {path}: {error}",
            "install OpenMP: libgomp1 on Debian and Ubuntu, libgomp on Fedora, libomp on macOS",
        ) from error
    except Exception as error:  # its module and its constructor may raise any exception
        raise LabError(
            f"cannot make {path}: {error}",
            "estimator is an import path such as sklearn.linear_model.LogisticRegression, settings its arguments",
        ) from error
    if not hasattr(estimator, "get_params") or not hasattr(estimator, "fit"):
        raise LabError(f"{path} is not an estimator", "take a scikit-learn classifier with predict_proba")
    parameters = estimator.get_params(deep=False)
    if "random_state" in parameters and "random_state" not in settings:
        estimator.set_params(random_state=seed)
    if parameters.get("final_estimator", estimator) is None:
        # scikit-learn takes the same when it fits; given here, the estimator says at once that it has probabilities.
        estimator.set_params(final_estimator=LogisticRegression())
    return estimator


def _argument(key: str, value: Any, seed: int) -> Any:
    """The value of a setting, with the declared estimators made."""
    try:
        if _is_declaration(value):
            return _make(value["estimator"], value.get("settings", {}), seed)
        if _is_group(value):
            return [(name, _argument(name, each, seed)) for name, each in value.items()]
    except LabError as error:
        raise LabError(f"settings.{key}: {error.message}", error.remedy) from error
    return value


def _is_declaration(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("estimator"), str)
        and isinstance(value.get("settings", {}), dict)
        and set(value) <= {"estimator", "settings"}
    )


def _is_group(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(_is_declaration(each) for each in value.values())


def _on_features(estimator: BaseEstimator) -> dict[str, BaseEstimator]:
    """The children that get the features; a final estimator gets probabilities."""
    return {name: child for name, child in children(estimator).items() if name != "final_estimator"}


def _has_trees(estimator: BaseEstimator) -> bool:
    kind, below = type(estimator).__name__, _on_features(estimator)
    if kind in TREES or (kind in TREES_BY_DEFAULT and not below):
        return True
    return any(_has_trees(child) for child in below.values())
