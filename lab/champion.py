"""Change the champion. The gate, the monitor, a person and a release all use the functions of this module.

An entry in the ledger is the decision, so the entry is written first. The alias, which the API polls, is moved
after it. A process that is killed between the two writes leaves an alias that is too old, and the next `settle` of any
process corrects it.
"""

from __future__ import annotations

import time
from typing import TypeVar

import msgspec

from lab import ledger
from lab.errors import LabError
from lab.ledger import Ledger
from lab.registry import Registry, Version

# How long a decision tries again while other processes write to the ledger.
SECONDS = 30.0
Entry = TypeVar("Entry", bound=ledger.Entry)


class ConflictError(LabError):
    """The champion is not the version that the caller expected."""


def settle(book: Ledger, registry: Registry) -> Version | None:
    """Make the alias agree with the newest entry of the ledger, and return the champion, if there is one.

    The alias decides in two cases: when the newest entry is of the first form, which was written after the alias, and
    when the registry no longer has the entry's version. Raises LabError when the newest entry is damaged.
    """
    return _settle(book, registry)[0]


def move(book: Ledger, registry: Registry, to: int, expected: int | None, entry: Entry) -> Entry:
    """Make version `to` the champion in place of `expected`, and return the entry as it was written.

    The number, `from_version` and `to_version` of `entry` are filled in. Raises ConflictError when the champion is not
    `expected`, and LabError when version `to` does not exist or the newest entry is damaged.
    """
    registry.version(to)
    record = _write(book, registry, entry, expected, to)
    settle(book, registry)
    return record


def note(book: Ledger, registry: Registry, expected: int | None, entry: Entry) -> Entry:
    """Write an entry that does not change the champion, and return the entry as it was written.

    Raises ConflictError when the champion is not `expected`, because the entry would then be false.
    """
    return _write(book, registry, entry, expected, expected)


def _settle(book: Ledger, registry: Registry) -> tuple[Version | None, ledger.AnyEntry | None]:
    """The champion and the newest entry.

    The alias is read after the ledger. After each write to the alias both are read again, because another process may
    have decided in between, also while this process was suspended.
    """
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        newest = _newest(book)
        champion = registry.champion()
        if newest is None or newest.number == 0 or newest.to_version is None:
            return champion, newest
        if champion and champion.number == newest.to_version:
            return champion, newest
        version = registry.find_version(newest.to_version)
        if version is None:
            return champion, newest
        registry.promote(version)
    raise _busy(registry.model)


def _write(book: Ledger, registry: Registry, entry: Entry, expected: int | None, to: int | None) -> Entry:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        champion, newest = _settle(book, registry)
        current = champion.number if champion else None
        if current != expected:
            raise _conflict(registry.model, current, expected, newest)
        number = (newest.number if newest else 0) + 1
        record = msgspec.structs.replace(entry, number=number, from_version=current, to_version=to)
        if book.put(record):
            return record
    raise _busy(registry.model)


def _newest(book: Ledger) -> ledger.AnyEntry | None:
    listing = book.last(1)
    if listing.damaged:
        raise ledger.damage(listing.damaged)
    return listing.entries[0] if listing.entries else None


def _conflict(model: str, current: int | None, expected: int | None, newest: ledger.AnyEntry | None) -> ConflictError:
    now, before = (f"version {each}" if each else "no version" for each in (current, expected))
    why = f" ({newest.reason}, decided by {newest.by} at {newest.at})" if newest else ""
    return ConflictError(
        f"the champion of {model} changed meanwhile: it is {now}{why}, and was {before}",
        "nothing was changed; see whether the decision still makes sense, then run the command again",
    )


def _busy(model: str) -> LabError:
    return LabError(
        f"other processes kept writing to the ledger of {model} for {SECONDS:.0f} s", "run the command again"
    )
