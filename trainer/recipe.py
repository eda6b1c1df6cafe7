"""Check a card's recipe before it is fitted again: only known classifiers are allowed.

A recipe is an import path with arguments. Without this check, write access to the registry would be enough to run code.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec
from sklearn.base import ClassifierMixin

from lab import card as cards
from lab.errors import LabError
from lab.problem import Candidate
from trainer.estimators import Settings, declared

# The classifiers of other packages, with the settings that they take beside the named arguments of their class. Others
# of LightGBM's and XGBoost's many parameters name files to read, or hosts to connect to.
BOOSTED: dict[str, frozenset[str]] = {
    "lightgbm.LGBMClassifier": frozenset(
        {"deterministic", "extra_trees", "force_col_wise", "force_row_wise", "is_unbalance", "max_bin", "verbosity"}
        | {"feature_fraction_bynode", "min_data_in_bin", "path_smooth", "scale_pos_weight"}
    ),
    "xgboost.XGBClassifier": frozenset(),
}


# A text that LightGBM reads as one value: it gets its parameters as one line, in which a space separates two of them.
PLAIN = re.compile(r"[\w.:@-]*", re.ASCII)


def check_estimator(path: str, settings: Settings, grid: dict[str, list[Any]]) -> None:
    """Raise LabError unless the estimator and all that its settings declare are known classifiers.

    Known are the classifiers of scikit-learn, LightGBM's LGBMClassifier and XGBoost's XGBClassifier.
    """
    for each, arguments in declared(path, settings):
        kind = _classifier(each)
        if kind is None:
            raise LabError(
                f"its card names {each[:100]!r}, which is not a classifier of scikit-learn, LightGBM or XGBoost",
                "train and promote again",
            )
        if each in BOOSTED:
            unchecked = set(arguments) - BOOSTED[each] - set(kind().get_params())
            unchecked |= {text for text in _texts([arguments, grid]) if not PLAIN.fullmatch(text)}
            if unchecked:
                raise LabError(
                    f"its card gives {each} the setting {min(unchecked)[:100]!r}, which may not be safe",
                    "train without this setting, and promote again",
                )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, at any depth, with the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(each)


def _classifier(path: str) -> type | None:
    """The class at an import path, if it is a known classifier."""
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] != "sklearn" and path not in BOOSTED:
        return None
    with contextlib.suppress(ImportError):
        kind = getattr(import_module(module), name, None)
        if isinstance(kind, type) and issubclass(kind, ClassifierMixin):
            return kind
    return None


def check_card(card: cards.Card) -> None:
    """Raise LabError unless the card has all that a new training needs: estimator, commit and parameters."""
    try:
        candidate = msgspec.convert(card.params["candidates"][card.recipe.candidate], Candidate)
        complete = {feature.name for feature in card.features} <= set(card.params["features"])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise LabError("its card does not hold the parameters of its training", "train and promote again") from error
    for recipe in (card.recipe, candidate):
        check_estimator(recipe.estimator, recipe.settings, recipe.grid)
    if not complete or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", card.lineage.git_commit):
        raise LabError("its card does not name the commit and the features of its training", "train and promote again")
