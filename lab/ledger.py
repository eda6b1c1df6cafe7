"""The ledger: the history of the champion. It has one immutable object for each decision, numbered consecutively.

A conditional put creates entry N + 1 only if no other process has created it. The number
therefore works as a lock: when two processes decide at the same time, one finds the number taken and must read again.

Entries of the first form (schema 1) had a time in place of a number. They are still read.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from lab import s3
from lab.card import Card, Spread, recipe_sha256
from lab.errors import LabError
from lab.settings import Settings

SCHEMA_VERSION = 2
_NUMBERED = re.compile(r"\d{8}\.json")


def now() -> str:
    """The present time in UTC, to the microsecond, as text that sorts by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def person() -> str:
    """The name of the user who runs this process, for the ledger."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The model that a decision is about. Entries of the first form do not have the last two fields."""

    candidate: str
    fingerprint: str
    recipe_sha256: str = ""
    data_md5: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates in one metric: mean and SD of each, and the lead of the best over the runner-up, if any."""

    metric: str
    scores: dict[str, Spread]
    best: str
    runner_up: str = ""
    lead: float | None = None
    p_value: float | None = None
    tells_apart: bool = False


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The figures behind a decision; None means that a figure was not used.

    `trainings` is the number of trainings on the same data so far. `barred` has the reasons why a candidate may not be
    champion, and `holds` has the reasons why a person must decide.
    """

    metric: str = ""
    score: float | None = None
    gain: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    trainings: int | None = None
    barred: dict[str, list[str]] = {}
    holds: list[str] = []
    comparison: list[Comparison] = []


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="decision"):
    """The fields of every entry. `from_version` and `to_version` are the champion before and after the decision;
    None means that there was no champion. `number` is 0 for an entry of the first form, which had no numbers.
    """

    schema_version: int = SCHEMA_VERSION
    number: int = 0
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    at: str = msgspec.field(default_factory=now)
    by: str
    model: str
    reason: str
    subject: Subject
    from_version: int | None = None
    to_version: int | None = None
    figures: Figures = Figures()


class Promoted(Entry, frozen=True, kw_only=True, tag="promoted"):
    """The gate promoted a version. `retry`: a person let it promote a recipe that was rolled back on the same data."""

    retry: bool = False


class Forced(Entry, frozen=True, kw_only=True, tag="forced"):
    """A person promoted a version that the gate held; `figures.holds` has the reasons that the person overrode."""

    retry: bool = False


class Held(Entry, frozen=True, kw_only=True, tag="held"):
    """The gate held the promotion of the candidate, so that a person decides."""


class Rejected(Entry, frozen=True, kw_only=True, tag="rejected"):
    """The candidate did not become champion."""


class RolledBack(Entry, frozen=True, kw_only=True, tag="rolled back"):
    """An earlier version became champion again; the subject is the version that was champion before."""


class RollbackAskedFor(Entry, frozen=True, kw_only=True, tag="rollback asked for"):
    """A person asked for a rollback of a release that does not follow the registry; the subject is its version."""


class Release(Entry, frozen=True, kw_only=True):
    """A decision about a release: the image `image`, which contains the subject, in `environment`."""

    environment: str
    image: str


class Released(Release, frozen=True, kw_only=True, tag="released"):
    """The image was released."""


class Verified(Release, frozen=True, kw_only=True, tag="verified"):
    """The release was found to work."""


class ReleaseRolledBack(Release, frozen=True, kw_only=True, tag="release rolled back"):
    """The environment went back to the image `image`; the subject is the version that ran before."""


AnyEntry = Promoted | Forced | Held | Rejected | RolledBack | RollbackAskedFor | Released | Verified | ReleaseRolledBack


@dataclass(frozen=True)
class Listing:
    """Entries, oldest first, and the keys of objects that hold no valid entry."""

    entries: list[AnyEntry]
    damaged: list[str]


def subject_of(card: Card) -> Subject:
    """The subject of a decision about a registered version, from its card."""
    return Subject(
        candidate=card.recipe.candidate,
        fingerprint=card.lineage.fingerprint,
        recipe_sha256=recipe_sha256(card.recipe),
        data_md5=card.lineage.data_md5,
    )


class Ledger:
    """The entries of one registered model. Every method raises LabError when S3 is away."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.model = model
        self._settings, self._bucket, self._prefix = settings, settings.s3_bucket, f"ledger/{model}/"
        self._client = s3.client(settings)

    def keys(self) -> list[str]:
        """The keys of all entries, oldest first. Those of the first form have a time in place of a number."""
        with s3.errors(self._settings):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            names = [item["Key"].removeprefix(self._prefix) for page in pages for item in page.get("Contents", [])]
        return [self._prefix + name for name in sorted(names, key=lambda name: (_number(name), name))]

    def read(self) -> Listing:
        """All entries."""
        return self._read(self.keys())

    def last(self, count: int) -> Listing:
        """The newest `count` objects; no other object is read."""
        return self._read(self.keys()[-count:])

    def put(self, entry: Entry) -> bool:
        """Write the entry under its number; return False when that number is taken by another entry."""
        from botocore.exceptions import ClientError

        key, body = f"{self._prefix}{entry.number:08}.json", msgspec.json.format(msgspec.json.encode(entry), indent=2)
        with s3.errors(self._settings):
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=body, ContentType="application/json", IfNoneMatch="*"
                )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                    raise
                # The object may be this entry: the client sends it again when the first answer is lost.
                return self._body(key) == body
        return True

    def _read(self, keys: list[str]) -> Listing:
        listing = Listing([], [])
        for key in keys:
            with s3.errors(self._settings):
                body = self._body(key)
            try:
                listing.entries.append(_decode(key, body))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                listing.damaged.append(key)
        return listing

    def _body(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


def damage(keys: list[str]) -> LabError:
    """The error of a decision that must not be made while these objects hold no valid entry."""
    return LabError(
        f"the ledger is damaged: {', '.join(keys[:3])}{' and more' if len(keys) > 3 else ''} cannot be read",
        "restore the object from a backup of the bucket; if there is none, delete it, and that decision is lost",
    )


def _number(name: str) -> int:
    return int(name[:8]) if _NUMBERED.fullmatch(name) else 0


def _decode(key: str, body: bytes) -> AnyEntry:
    number = _number(key.rpartition("/")[2])
    entry = msgspec.json.decode(body, type=AnyEntry) if number else _first_form(body)
    if entry.number != number or not 1 <= entry.schema_version <= SCHEMA_VERSION:
        raise msgspec.DecodeError("it is not the entry of this number")
    return entry


class _FirstForm(msgspec.Struct, kw_only=True):
    """An entry of the form without numbers. Only these two decisions existed."""

    at: str
    decision: str
    by: str
    model: str
    candidate: str
    fingerprint: str
    from_version: int | None
    to_version: int | None
    metric: str
    figures: dict[str, Any]
    reason: str


def _first_form(body: bytes) -> AnyEntry:
    old = msgspec.json.decode(body, type=_FirstForm)
    kinds: dict[str, type[Promoted | Rejected]] = {"promoted": Promoted, "rejected": Rejected}
    if old.decision not in kinds:
        raise msgspec.ValidationError(f"an unknown decision: {old.decision}")
    figures = {**old.figures, "metric": old.metric, "gain": old.figures.get("gain_over_champion")}
    return kinds[old.decision](
        schema_version=1,
        id="",
        at=old.at,
        by=old.by,
        model=old.model,
        reason=old.reason,
        subject=Subject(candidate=old.candidate, fingerprint=old.fingerprint),
        from_version=old.from_version,
        to_version=old.to_version,
        figures=msgspec.convert(figures, Figures),
    )
