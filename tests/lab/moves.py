"""A process that moves the champion: `python -m tests.lab.moves MODEL SEED COUNT FATE`.

It moves the champion `COUNT` times, each time from whatever version it finds. The fate `stop` or `kill` suspends or
ends the process between the two writes of its third move. The settings come from the environment.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import dataclass, field

from lab import champion, settings
from lab.ledger import Ledger, Promoted, Subject
from lab.registry import Registry, Version

VERSIONS = 5
FATES = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL, "none": None}


@dataclass(frozen=True)
class Fateful(Registry):
    """A registry whose alias is written late, or never: each of the `signals` comes before a write."""

    signals: list[signal.Signals] = field(default_factory=list)

    def promote(self, version: Version) -> None:
        if self.signals:
            os.kill(os.getpid(), self.signals.pop())
        super().promote(version)


def entry(model: str) -> Promoted:
    return Promoted(by="a test", model=model, reason="none", subject=Subject(candidate="c", fingerprint="f"))


def main() -> None:
    model, seed, count, fate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), FATES[sys.argv[4]]
    values, rng, done = settings.load(), random.Random(seed), 0
    book, registry = Ledger(values, model), Registry(values.mlflow_url, model)
    while done < count:
        current = champion.settle(book, registry)
        to = rng.choice([number for number in range(1, VERSIONS + 1) if not current or number != current.number])
        mover = Fateful(registry.url, model, [fate]) if fate and done == 2 else registry
        try:
            champion.move(book, mover, to, current.number if current else None, entry(model))
        except champion.ConflictError:
            continue
        done += 1
        fate = None if done > 2 else fate
    print(done)


if __name__ == "__main__":
    main()
