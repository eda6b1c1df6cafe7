"""Record the warnings of many fits, and show each of them once with its count."""

from __future__ import annotations

import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Python records warnings per process, so a thread would also record the warnings of other threads.
_ONE_AT_A_TIME = threading.Lock()
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the text of each warning issued in the block.

    Python's filters and the option -W still apply: a warning that they ignore is not recorded, and a warning that they
    turn into an error is raised. All other warnings are recorded each time. Only one thread of a process at a time can
    be in such a block.
    """
    texts: list[str] = []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", append=True)
        try:
            yield texts
        finally:
            texts += [f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in caught]


def lines(texts: Iterable[str]) -> list[str]:
    """Each warning once, with its count. Warnings that differ only in numbers count as one; the first is shown."""
    first: dict[str, str] = {}
    counts = Counter(first.setdefault(_NUMBER.sub("#", text), text) for text in texts)
    return [f"{count} {'time' if count == 1 else 'times'}: {text}" for text, count in counts.items()]
