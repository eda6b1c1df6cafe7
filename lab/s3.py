"""The lab's bucket, with a limit on every wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lab import aws
from lab.errors import LabError
from lab.settings import Settings


def client(settings: Settings) -> Any:
    """A boto3 client for the lab's S3."""
    return aws.client(settings, "s3")


@contextlib.contextmanager
def errors(settings: Settings) -> Iterator[None]:
    """Turn a failure of S3 within the `with` block into a LabError."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, ValueError) as error:
        raise unavailable(settings, error) from error


def ensure_bucket(settings: Settings) -> None:
    """Make the bucket if it is missing; raise LabError when S3 refuses that."""
    from botocore.exceptions import ClientError

    with errors(settings):
        s3 = client(settings)
        try:
            s3.head_bucket(Bucket=settings.s3_bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            s3.create_bucket(Bucket=settings.s3_bucket)


def get(settings: Settings, key: str, most: int) -> bytes:
    """The object `key` of the lab's bucket, of at most `most` bytes; raise LabError if it is missing or larger."""
    with errors(settings):
        answer = client(settings).get_object(Bucket=settings.s3_bucket, Key=key)
        body: bytes = answer["Body"].read(most + 1)
    if len(body) > most:
        raise LabError(
            f"{key} has more than {most / 2**20:g} MB", "look at the object: it is not one that the lab writes"
        )
    return body


def unavailable(settings: Settings, error: Exception) -> LabError:
    return LabError(
        f"S3 at {settings.s3_url} failed: {getattr(error, 'message', error)}",
        "see `make status` and `make logs`; `make up` starts it, then run the command again",
    )
