"""Test that `make up` notices the loss of the data in S3."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from lab import s3, settings
from tests.conftest import Lab


def store(lab: Lab) -> Any:
    """Return a client of the lab's S3 with the lab's keys."""
    env_values = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines()[1:])
    return s3.client(settings.load({**env_values, **lab.env}))


def objects(lab: Lab) -> dict[str, bytes]:
    """Return every object in the lab's bucket by its key."""
    client = store(lab)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lab")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key: client.get_object(Bucket="lab", Key=key)["Body"].read() for key in keys}


def test_a_lost_store_is_noticed(lab):
    """`make up` names the lost data and a remedy, and succeeds again when the data are back."""
    client, before, version = store(lab), objects(lab), lab.api("GET", "/readyz")[1]["version"]
    for key in before:
        client.delete_object(Bucket="lab", Key=key)
    client.delete_bucket(Bucket="lab")
    try:
        process = lab.run(sys.executable, "-m", "launcher", "up")
    finally:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket="lab")
        for key, body in before.items():
            client.put_object(Bucket="lab", Key=key, Body=body)
    assert process.returncode == 1
    assert "the data in S3 are lost" in process.stderr
    assert f"version {version} of breast-cancer-wisconsin" in process.stderr
    assert "ledger" in process.stderr
    place = str(lab.root / ".lab" / "s3") if lab.env["ENGINE"] == "embedded" else "the volume"
    assert f"{place}" in process.stderr
    assert "`make reset`, then `make up`" in process.stderr
    assert f"version {version} is served" in lab.python("-m", "launcher", "up")
