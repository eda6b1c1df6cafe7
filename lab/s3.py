"""The lab's bucket, with a limit on every wait."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from lab.errors import LabError
from lab.settings import Settings


def client(settings: Settings) -> Any:
    """A boto3 client for the lab's S3. It ignores any profile, endpoint and proxy in the caller's shell."""
    import boto3  # here, because it costs 0.3 s that most commands need not pay
    import botocore.session
    from botocore.config import Config

    # Overrides the shell's AWS_PROFILE and the user's ~/.aws files.
    own = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    session = botocore.session.Session({name: (None, None, value, None) for name, value in own.items()})
    return boto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=settings.s3_url,
        aws_access_key_id=settings["S3_ACCESS_KEY"],
        aws_secret_access_key=settings["S3_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(
            connect_timeout=3,
            read_timeout=20,
            retries={"total_max_attempts": 2, "mode": "standard"},
            s3={"addressing_style": "path"},
            proxies={},
            # Some S3 servers do not know the checksums that boto3 sends by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextlib.contextmanager
def errors(settings: Settings) -> Iterator[None]:
    """Turn a failure of S3 within the `with` block into a LabError."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, ValueError) as error:
        raise unavailable(settings, error) from error


def ensure_bucket(settings: Settings) -> None:
    """Make the bucket if it is missing; raise LabError when S3 does not let us."""
    from botocore.exceptions import ClientError

    with errors(settings):
        s3 = client(settings)
        try:
            s3.head_bucket(Bucket=settings["S3_BUCKET"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            s3.create_bucket(Bucket=settings["S3_BUCKET"])


def get(settings: Settings, key: str, most: int) -> bytes:
    """The object `key` of the lab's bucket, of at most `most` bytes; raise LabError if it is missing or larger."""
    with errors(settings):
        answer = client(settings).get_object(Bucket=settings["S3_BUCKET"], Key=key)
        body: bytes = answer["Body"].read(most + 1)
    if len(body) > most:
        raise LabError(f"{key} has more than {most / 2**20:g} MB", "see what has been stored there")
    return body


def unavailable(settings: Settings, error: Exception) -> LabError:
    return LabError(
        f"S3 at {settings.s3_url} failed: {getattr(error, 'message', error)}",
        "see `make status` and `make logs`; `make up` starts it, then run the command again",
    )
