"""Warnings of many fits: recorded where they are given, shown once each with their count."""

from __future__ import annotations

import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Python records warnings for a whole process, and threads would take each other's.
_ONE_AT_A_TIME = threading.Lock()
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Give a list that has, after the block, the text of each warning given in it.

    Warnings that Python or the person at the command line (-W) ignores are ignored, and those made into errors are
    raised; all others are recorded each time. Threads of one process wait for each other here.
    """
    texts: list[str] = []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", append=True)
        try:
            yield texts
        finally:
            texts += [f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in caught]


def lines(texts: Iterable[str]) -> list[str]:
    """Each warning once, after its count; those that differ in numbers only are one, shown by the first of them."""
    first: dict[str, str] = {}
    counts = Counter(first.setdefault(_NUMBER.sub("#", text), text) for text in texts)
    return [f"{count} {'time' if count == 1 else 'times'}: {text}" for text, count in counts.items()]
