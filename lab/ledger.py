"""The ledger: who was champion when, and why. One immutable object a decision, sorted by time."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from lab import s3
from lab.settings import Settings


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A decision. Versions are numbers in the registry; None means there was, or is, none."""

    at: str
    decision: Literal["promoted", "rejected", "rolled back"]
    by: str
    model: str
    candidate: str
    fingerprint: str
    from_version: int | None
    to_version: int | None
    metric: str
    figures: dict[str, Any]
    reason: str


def now() -> str:
    """This moment in UTC, to the microsecond, in a form that sorts."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def write(settings: Settings, entry: Entry) -> str:
    """Put the entry under a key of its own and return the key; an entry is never written over."""
    from botocore.exceptions import BotoCoreError, ClientError

    key = f"ledger/{entry.model}/{entry.at}-{secrets.token_hex(4)}.json"
    try:
        s3.client(settings).put_object(
            Bucket=settings["S3_BUCKET"],
            Key=key,
            Body=msgspec.json.format(msgspec.json.encode(entry), indent=2),
            ContentType="application/json",
            IfNoneMatch="*",
        )
    except (BotoCoreError, ClientError, ValueError) as error:
        raise s3.unavailable(settings, error) from error
    return key


def read(settings: Settings, model: str) -> list[Entry]:
    """All entries of a model, oldest first."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = settings["S3_BUCKET"]
    try:
        client = s3.client(settings)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"ledger/{model}/")
        keys = sorted(item["Key"] for page in pages for item in page.get("Contents", []))
        bodies = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    except (BotoCoreError, ClientError, ValueError) as error:
        raise s3.unavailable(settings, error) from error
    return [msgspec.json.decode(body, type=Entry) for body in bodies]
