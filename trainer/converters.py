"""The converters to ONNX that skl2onnx lacks, or that have a fault in it: boosted trees.

LightGBM and HistGradientBoosting compare a float64 value with a float64 threshold, and ONNX Runtime compares float32
values. A threshold is therefore rounded down to a float32: for a float32 value x, x <= threshold holds before the
rounding exactly when it holds after it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from skl2onnx import update_registered_converter
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import get_converter, register_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from skl2onnx.operator_converters.linear_classifier import convert_sklearn_linear_classifier
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer

from trainer import encoding_onnx
from trainer.encoding import Imputer
from trainer.estimators import nested
from trainer.metrics import Floats

# The classifiers that are converted; tests/unit/test_models.py compares this with what happens. docs/models.md has the
# settings that they need, and those that cannot be converted.
CONVERTED = (
    "AdaBoostClassifier",
    "BaggingClassifier",
    "BernoulliNB",
    "CalibratedClassifierCV",
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "ExtraTreesClassifier",
    "GaussianNB",
    "GradientBoostingClassifier",
    "HistGradientBoostingClassifier",
    "KNeighborsClassifier",
    "LGBMClassifier",
    "LinearDiscriminantAnalysis",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MLPClassifier",
    "NuSVC",
    "OneVsRestClassifier",
    "QuadraticDiscriminantAnalysis",
    "RandomForestClassifier",
    "SGDClassifier",
    "SVC",
    "StackingClassifier",
    "TunedThresholdClassifierCV",
    "VotingClassifier",
    "XGBClassifier",
)
HIST, VOTE = "SklearnHistGradientBoostingClassifier", "SklearnVotingClassifier"
OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
RAW = {**OPTIONS, "raw_scores": [True, False]}


def register(model: BaseEstimator) -> None:
    """Register the converters for the estimator and for those in it.

    A package is imported only for its own estimators, because the import takes time.
    """
    _register_sklearn()
    encoding_onnx.register()
    packages = {type(estimator).__module__.partition(".")[0] for estimator in nested(model)}
    if "lightgbm" in packages:
        _register_lightgbm()
    if "xgboost" in packages:
        _register_xgboost()


def round_down(values: ArrayLike) -> Floats:
    """Each value, or the greatest float32 below it when it is not a float32 itself."""
    exact = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


class _Container:
    """skl2onnx's container of nodes, with the attributes of trees as onnx takes them.

    skl2onnx 1.20 and onnxmltools 1.16 give onnx lists that hold both bool and int, and arrays where it expects lists;
    onnx 1.23 refuses them. Remove `_plain` when `tests/unit/test_models.py` passes without it.
    """

    def __init__(self, container: Any, **changes: Any) -> None:
        """`changes` are attributes to set, or functions that make them from the value of the converter."""
        self._container = container
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, op_type: str, inputs: Any, outputs: Any, **attributes: Any) -> None:
        if op_type.startswith("TreeEnsemble"):
            attributes = {key: _plain(value) for key, value in attributes.items()}
            for key, change in self._changes.items():
                attributes[key] = change(attributes[key]) if callable(change) else change
            # Without a version, skl2onnx takes the newest of the operator, which this release of it cannot write.
            attributes.setdefault("op_version", 1)
        self._container.add_node(op_type, inputs, outputs, **attributes)


def _plain(value: Any) -> Any:
    """A list without bool and numpy's types; any other value as it is."""
    if not isinstance(value, (list, np.ndarray)):
        return value
    numbers = [each.item() if isinstance(each, np.generic) else each for each in np.ravel(value).tolist()]
    if any(isinstance(each, float) for each in numbers):
        return [float(each) for each in numbers]
    return [int(each) if isinstance(each, bool) else each for each in numbers]


@functools.cache
def _register_sklearn() -> None:
    sklearn_operator_name_map[Imputer] = sklearn_operator_name_map[SimpleImputer]
    hist, vote = get_converter(HIST), get_converter(VOTE)

    def convert_hist(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        if model.is_categorical_ is not None:
            raise NotImplementedError("categorical_features cannot be converted")
        with _changed(model, _predictors=_rounded(model._predictors)):
            hist(scope, operator, _Container(container))

    def convert_vote(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        # skl2onnx 1.20 refuses `flatten_transform`, which does not change probabilities, and fails on weights in a
        # list and on weights of an estimator that is dropped.
        weights = None if model.weights is None else np.array(model._weights_not_none)
        with _changed(model, flatten_transform=False, weights=weights):
            vote(scope, operator, container)

    def convert_discriminant(scope: Any, operator: Any, container: Any) -> None:
        # skl2onnx 1.20 gives the softmax of minus and plus the score, which is the logistic function of twice the
        # score; scikit-learn 1.9 gives the logistic function of the score.
        model = operator.raw_operator
        share = 1.0 if container.get_options(model, {"raw_scores": False})["raw_scores"] else 0.5
        with _changed(model, coef_=model.coef_ * share, intercept_=model.intercept_ * share):
            convert_sklearn_linear_classifier(scope, operator, container)

    register_converter(HIST, convert_hist, overwrite=True, options=RAW)
    register_converter(VOTE, convert_vote, overwrite=True, options=OPTIONS)
    update_registered_converter(
        LinearDiscriminantAnalysis,
        "LabLinearDiscriminantAnalysis",
        calculate_linear_classifier_output_shapes,
        convert_discriminant,
        overwrite=True,
        options=RAW,
    )


@contextlib.contextmanager
def _changed(model: Any, **attributes: Any) -> Iterator[None]:
    """The model with other attributes for a time. A copy would not do: skl2onnx finds the options by identity."""
    before = {name: getattr(model, name) for name in attributes}
    vars(model).update(attributes)
    try:
        yield
    finally:
        vars(model).update(before)


def _rounded(predictors: list[list[Any]]) -> list[list[Any]]:
    """The trees of a HistGradientBoostingClassifier with float32 thresholds.

    skl2onnx rounds them to the nearest float32, which may be above the threshold.
    """
    rounded = []
    for trees in predictors:
        nodes = [tree.nodes.copy() for tree in trees]
        for each in nodes:
            each["num_threshold"] = round_down(each["num_threshold"])
        rounded.append([SimpleNamespace(nodes=each) for each in nodes])
    return rounded


@functools.cache
def _register_lightgbm() -> None:
    from lightgbm import LGBMClassifier
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    def convert(scope: Any, operator: Any, container: Any) -> None:
        changes: dict[str, Any] = {"nodes_values": lambda values: round_down(values).tolist()}
        # onnxmltools does not know this option, which the conversion of a CalibratedClassifierCV sets.
        if container.get_options(operator.raw_operator, {"raw_scores": False})["raw_scores"]:
            changes["post_transform"] = "NONE"
        convert_lightgbm(scope, operator, _Container(container, **changes))

    update_registered_converter(
        LGBMClassifier, "LightGbmClassifier", calculate_linear_classifier_output_shapes, convert, options=RAW
    )


@functools.cache
def _register_xgboost() -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier

    def convert(scope: Any, operator: Any, container: Any) -> None:
        # Without n_estimators, onnxmltools counts the trees. It otherwise takes several trees in a round, as with
        # `num_parallel_tree`, for several classes. XGBoost's thresholds are float32 already, written as decimals that
        # only the nearest float32 restores.
        with _changed(operator.raw_operator, n_estimators=None):
            convert_xgboost(scope, operator, _Container(container))

    update_registered_converter(
        XGBClassifier, "XGBoostClassifier", calculate_linear_classifier_output_shapes, convert, options=OPTIONS
    )
