"""Check a card's recipe before `reproduce` fits it again: only scikit-learn's own classifiers are allowed.

A recipe is an import path with arguments. Without this check, write access to the registry would be enough to run code.
"""

from __future__ import annotations

import contextlib
import re
from importlib import import_module

from sklearn.base import ClassifierMixin

from lab import card as cards
from lab.errors import LabError


def check_estimator(path: str) -> None:
    """Raise LabError unless `path` is the import path of one of scikit-learn's own classifiers."""
    module, _, name = path.rpartition(".")
    if module.split(".")[0] == "sklearn":
        with contextlib.suppress(ImportError):
            kind = getattr(import_module(module), name, None)
            if isinstance(kind, type) and issubclass(kind, ClassifierMixin):
                return
    raise LabError(
        f"its card names {path[:100]!r}, which is not a classifier of scikit-learn", "train and promote again"
    )


def check_card(card: cards.Card) -> None:
    """Raise LabError unless the card has all that a new training needs: estimator, commit and parameters."""
    try:
        candidate = card.params["candidates"][card.recipe.candidate]
        paths = {card.recipe.estimator, candidate["estimator"]}
        complete = {feature.name for feature in card.features} <= set(card.params["features"])
    except (KeyError, TypeError) as error:
        raise LabError("its card does not hold the parameters of its training", "train and promote again") from error
    for path in paths:
        check_estimator(str(path))
    if not complete or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", card.lineage.git_commit):
        raise LabError("its card does not name the commit and the features of its training", "train and promote again")
