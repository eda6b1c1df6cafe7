"""The progress of a training on the terminal: the fits that are done, of all fits, by candidate."""

from __future__ import annotations

import time
from collections import Counter

# A line begins with this text, so that the launcher can show the latest one in place.
PREFIX = "fits: "
# A line is printed at most once in this number of seconds.
SECONDS = 5.0


class FitProgress:
    """Counts fits, and prints a line for them now and then and at the end."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next = self._begun + SECONDS
        self._done: Counter[str] = Counter()
        self._total: Counter[str] = Counter()

    def expect(self, candidate: str, fits: int) -> None:
        self._total[candidate] += fits

    def done(self, candidate: str, fits: int) -> None:
        self._done[candidate] += fits
        if time.monotonic() >= self._next:
            self._print()

    def finish(self) -> None:
        """Print the last line."""
        self._print()

    def _print(self) -> None:
        seconds = time.monotonic() - self._begun
        each = ", ".join(f"{name} {self._done[name]:,} of {total:,}" for name, total in self._total.items())
        print(f"{PREFIX}{self._done.total():,} of {self._total.total():,} in {seconds:.0f} s ({each})", flush=True)
        self._next = time.monotonic() + SECONDS
