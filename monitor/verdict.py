"""The verdict on the present champion: it is rolled back when it breaks a promise and the previous one does better."""

from __future__ import annotations

from typing import Literal

import msgspec

from monitor.promise import METRIC, SIDES, Promise, Side
from monitor.shadow import Shadow

Kind = Literal["unknown", "kept", "promise_broken", "previous_better", "roll_back"]
RETRAIN = "retrain (`make train`), review the decision, and promote with `make train ACCEPT=1`"


class Verdict(msgspec.Struct, frozen=True):
    """The kind of the verdict, the class that it is about, and the reason in a sentence."""

    kind: Kind
    reason: str
    side: Side | None = None


def verdict(promise: Promise | None, shadow: Shadow | None) -> Verdict:
    """The verdict on the evidence so far; `promise` is None for a card without counts."""
    if promise is None:
        return Verdict(
            "unknown", "the card of this version states no counts, so that it is watched and never rolled back"
        )
    if not promise.broken:
        if shadow and shadow.ahead:
            side: Side = "positives" if shadow.positives.evidence >= shadow.negatives.evidence else "negatives"
            return Verdict(
                "previous_better", f"version {shadow.previous} does better on {side}, and no promise is broken", side
            )
        return Verdict(
            "kept", f"the evidence against the promises is {promise.evidence:.3g}; {promise.alarm:g} is an alarm"
        )
    if shadow is None:
        return Verdict(
            "promise_broken", _broken(promise) + "; there is no earlier champion to compare with", promise.broken[0]
        )
    for side in promise.broken:
        if side in shadow.better and shadow.record(side == "negatives").kept:  # that of the other class
            return Verdict("roll_back", f"{_broken(promise, side)}, and version {shadow.previous} does better", side)
    return Verdict("promise_broken", f"{_broken(promise)}; {_not_better(promise, shadow)}", promise.broken[0])


def _broken(promise: Promise, *sides: Side) -> str:
    parts = []
    for side in sides or promise.broken:
        stream = promise.positives if side == "positives" else promise.negatives
        parts.append(
            f"the promised {METRIC[side]} of {1 - stream.limit:.3f} is broken: "
            f"{stream.failures} of {stream.bets.count} {side} failed"
        )
    return ", and ".join(parts)


def _not_better(promise: Promise, shadow: Shadow) -> str:
    for side in promise.broken:
        if side in shadow.better:
            other = SIDES[1 - SIDES.index(side)]
            record = shadow.record(other == "positives")
            return (
                f"version {shadow.previous} does better on {side}, and breaks the promise on {other}: it failed on "
                f"{record.failures} of {record.count}, and the promise allows a share of {record.limit:.3f}"
            )
    side = promise.broken[0]
    evidence = (shadow.positives if side == "positives" else shadow.negatives).evidence
    return (
        f"the evidence that version {shadow.previous} does better on {side} is {evidence:.3g} of {shadow.threshold:g}"
    )
