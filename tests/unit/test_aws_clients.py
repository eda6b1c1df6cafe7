"""The clients of `lab.aws`, tested against the stand-in: root's key, a role on the real AWS, and the lab's own S3."""

from __future__ import annotations

import json

import pytest

from lab import aws, settings
from lab.errors import LabError
from lab.settings import Settings
from tests.emulator import Emulator, running

ROLE = "arn:aws:iam::000000000000:role/pipeline"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    with running(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    """A shell with keys of another project."""
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-another-project")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-another-project")


def settings_for(emulator: Emulator, **changes: str) -> Settings:
    keys = {"AWS_EMULATOR_KEY_ID": emulator.key_id, "AWS_EMULATOR_SECRET_KEY": emulator.secret}
    return settings.parse({"AWS_PORT": str(emulator.port), **keys, **changes})


def test_the_stand_in_is_reached_whatever_the_shell_holds(emulator, monkeypatch):
    """The client uses root's key of the settings, and not the shell's profile, proxy or endpoint."""
    monkeypatch.setenv("AWS_PROFILE", "of-another-project")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert aws.client(settings_for(emulator), "sts").get_caller_identity()["Arn"].endswith(":root")


def test_the_real_aws_has_its_own_address_in_the_region(emulator):
    """With AWS_TARGET=aws the client has no endpoint of the lab, and the region of the settings."""
    values = settings_for(emulator, AWS_TARGET="aws", AWS_REGION="eu-central-1")
    client = aws.client(values, "ecs")
    assert client.meta.endpoint_url == "https://ecs.eu-central-1.amazonaws.com"
    assert client.meta.region_name == "eu-central-1"


@pytest.mark.parametrize(("role", "arn"), [("", ":root"), (ROLE, ":assumed-role/pipeline/")])
def test_on_the_real_aws_the_shells_credentials_count_or_a_role(emulator, monkeypatch, role, arn):
    """The client uses the shell's credentials or the role. Here AWS_ENDPOINT_URL leads it to the stand-in."""
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    iam = emulator.client("iam")
    if role and "pipeline" not in {each["RoleName"] for each in iam.list_roles()["Roles"]}:
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        iam.create_role(RoleName="pipeline", AssumeRolePolicyDocument=document)
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", emulator.secret)
    values = settings_for(emulator, AWS_TARGET="aws", AWS_ROLE_ARN=role)
    assert arn in aws.client(values, "sts").get_caller_identity()["Arn"]


def test_the_bucket_is_the_labs_wherever_the_releases_go(emulator):
    """S3 has its own address and keys on every target, and the keys must be drawn first."""
    values = settings_for(emulator, AWS_TARGET="aws", S3_PORT="9100", AWS_REGION="eu-central-1")
    with pytest.raises(LabError, match="S3_ACCESS_KEY is not set"):
        aws.client(values, "s3")
    keys = {"S3_ACCESS_KEY": "lab-user", "S3_SECRET_KEY": "a-secret-of-its-own"}
    client = aws.client(settings.parse({**values.texts(), **keys}), "s3")
    assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:9100", "eu-central-1")
