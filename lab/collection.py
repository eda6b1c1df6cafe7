"""The proposal of `trainer collect`: live records to add to the dataset. `make collect` shows and writes it."""

from __future__ import annotations

import msgspec

from lab.settings import STATE

# The trainer leaves its proposal here, because only a container can read the events of a lab in containers.
PROPOSAL = STATE / "collect.json"
# Counts of rows by the label of the class, the negative class first.
Classes = dict[str, int]


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """New records by month, and `text`, the whole file with the earlier and the new ones; `total` counts both.

    `dataset` counts the classes of the present dataset, and `left_out` the events that are not taken, by reason.
    `notes` are sentences about single records.
    """

    problem: str
    months: dict[str, Classes]
    dataset: Classes
    left_out: dict[str, int]
    notes: list[str]
    total: int
    text: str

    @property
    def records(self) -> int:
        return sum(sum(classes.values()) for classes in self.months.values())
