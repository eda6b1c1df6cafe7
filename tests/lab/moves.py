"""A process that moves the champion: `python -m tests.lab.moves MODEL SEED COUNT FATE`.

The process moves the champion `COUNT` times, each time from the version that is champion then. The fate `stop` or
`kill` suspends or ends the process between the two writes of its third move. The settings come from the environment.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from lab import champion, settings
from lab.ledger import Entry, Ledger, Promoted, Subject
from lab.registry import Registry

VERSIONS = 5
FATES = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL, "none": None}


class Fateful(Ledger):
    """A ledger that sends the signal `fate` to its process after the entry is written and before the alias is."""

    fate: signal.Signals | None = None

    def put(self, entry: Entry) -> bool:
        entry_written = super().put(entry)
        if entry_written and self.fate:
            os.kill(os.getpid(), self.fate)
        return entry_written


def entry(model: str) -> Promoted:
    return Promoted(by="a test", model=model, reason="none", subject=Subject(candidate="c", fingerprint="f"))


def main() -> None:
    model, seed, count, fate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), FATES[sys.argv[4]]
    values, rng, moves = settings.load(), random.Random(seed), 0
    book, registry = Fateful(values, model), Registry(values.tracking_url, model)
    while moves < count:
        current = champion.settle(book, registry)
        to = rng.choice([number for number in range(1, VERSIONS + 1) if not current or number != current.number])
        book.fate = fate if moves == 2 else None
        try:
            champion.move(book, registry, to, current.number if current else None, entry(model))
        except champion.ConflictError:
            time.sleep(rng.uniform(0, 0.3))
            continue
        moves += 1
    print(moves)


if __name__ == "__main__":
    main()
