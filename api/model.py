"""Load a model from its package, verify it, and warm it up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from api.codec import Codec
from lab import card as cards
from lab import package, trial
from lab.errors import LabError


@dataclass(frozen=True)
class Model:
    """A verified model. It is never changed: a new champion is a new Model."""

    version: int
    card: cards.Card
    codec: Codec
    session: onnxruntime.InferenceSession

    def probabilities(self, rows: NDArray[np.float32]) -> list[float]:
        """The positive class's probability for each of `rows`, shape (n, features), NaN for missing.

        Raises package.ModelError unless each of them is a probability.
        """
        return package.score(self.session, rows)

    def label(self, probability: float) -> str:
        classes = self.card.classes
        return classes.positive if probability >= self.card.threshold else classes.negative


def load(name: str, version: int, card_text: bytes, model: bytes, lock: Path | None = None) -> Model:
    """Load a package of the registered model `name`; raise LabError unless `trial.verify` finds it sound.

    The self-test also warms the model up, so ONNX Runtime has allocated its memory before the first request.
    """
    try:
        card = trial.verify(name, card_text, model, lock)
        served = Model(version, card, Codec(card), package.open_session(model))
        package.check_self_test(served.session, card)
    except LabError:
        raise
    except Exception as error:  # any other failure after the trial also means that the package is refused
        raise LabError(f"the package cannot be loaded: {error}"[:500], "promote another version") from error
    return served
