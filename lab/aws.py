"""Clients of AWS services: those of the stand-in or of the real AWS, and the lab's own S3.

Every wait of a client has a limit. The proxy that the caller's shell names is used for the real AWS only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lab.settings import Settings


@dataclass(frozen=True)
class Target:
    """The address and keys of a service. On the real AWS `endpoint` is None, and the keys are the shell's."""

    endpoint: str | None
    region: str
    key_id: str = ""
    secret_key: str = ""


def target(settings: Settings, service: str) -> Target:
    """The target of a service by boto3's name. `s3` is always the S3 of the lab's bucket, whatever AWS_TARGET is.

    Raises LabError when a secret that the target needs is not set.
    """
    if service == "s3":
        keys = (settings.secret("S3_ACCESS_KEY"), settings.secret("S3_SECRET_KEY"))
        return Target(settings.s3_url, settings.aws_region, *keys)
    if settings.aws_target == "aws":
        return Target(None, settings.aws_region)
    keys = (settings.secret("AWS_EMULATOR_KEY_ID"), settings.secret("AWS_EMULATOR_SECRET_KEY"))
    return Target(f"http://127.0.0.1:{settings.aws_port}", settings.aws_region, *keys)


def client(settings: Settings, service: str) -> Any:
    """A boto3 client for the service.

    A client with an endpoint ignores any profile, endpoint and proxy in the caller's shell. A client of the real AWS
    takes credentials as AWS's own tools do (variables, profile, web identity, instance role), and assumes AWS_ROLE_ARN
    with them if that is set.
    """
    import boto3  # imported here, because the import takes 0.3 s and most commands do not need it

    place = target(settings, service)
    if place.endpoint is None:
        session = _shell_session(settings)
        return boto3.Session(botocore_session=session).client(service, config=_config())
    return boto3.Session(botocore_session=_bare_session()).client(
        service,
        endpoint_url=place.endpoint,
        aws_access_key_id=place.key_id,
        aws_secret_access_key=place.secret_key,
        region_name=place.region,
        config=_config(
            s3={"addressing_style": "path"},
            proxies={},
            # Some S3 servers do not know the checksums that boto3 sends by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _config(**options: Any) -> Any:
    from botocore.config import Config

    retries = {"total_max_attempts": 2, "mode": "standard"}
    return Config(connect_timeout=3, read_timeout=20, retries=retries, **options)


def _bare_session() -> Any:
    """A session that knows neither the shell's AWS_PROFILE nor the user's ~/.aws files."""
    import botocore.session

    own = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    return botocore.session.Session({name: (None, None, value, None) for name, value in own.items()})


def _shell_session(settings: Settings) -> Any:
    """A session with the shell's credentials, or with those of AWS_ROLE_ARN, renewed before they end."""
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    session = botocore.session.get_session()
    session.set_config_variable("region", settings.aws_region)
    if settings.aws_role_arn:
        own = session.get_credentials()
        fetcher = AssumeRoleCredentialFetcher(session.create_client, own, settings.aws_role_arn)
        session = botocore.session.get_session()
        session.set_config_variable("region", settings.aws_region)
        session._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    return session
