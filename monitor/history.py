"""The champions so far, from the ledger, and the one to go back to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lab.ledger import Entry, RolledBack


def champions(entries: Sequence[Entry]) -> list[int]:
    """The versions that were champion, in the order in which they became it; `entries` are sorted, oldest first."""
    versions: list[int] = []
    for entry in entries:
        if entry.to_version is not None and (not versions or versions[-1] != entry.to_version):
            versions.append(entry.to_version)
    return versions


def rolled_back(entries: Sequence[Entry]) -> set[int]:
    """The versions that were rolled back at least once; no version in this set is restored by the monitor."""
    return {e.from_version for e in entries if isinstance(e, RolledBack) and e.from_version is not None}


def previous(entries: Sequence[Entry], version: int, demo: Collection[int] = ()) -> int | None:
    """The last version that was champion before `version` and was not rolled back; None when there is none.

    `demo` are the versions with the tag `demo`. A version without the tag never goes back to one of them.
    """
    barred = rolled_back(entries) | (set() if version in demo else set(demo))
    order = champions(entries)
    if version in order:
        order = order[: len(order) - 1 - order[::-1].index(version)]
    return next((each for each in reversed(order) if each != version and each not in barred), None)
