"""Every setting of the lab in one typed table, with functions that read `.env`, write it, and print the help.

A value comes from the command line, else from `.env`, else from the table. Secrets have no default; `draw` generates
their values.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from lab import env_file
from lab.errors import LabError
from lab.setting_types import (
    AccessKey,
    Bucket,
    ClientKey,
    Days,
    EmulatorKeyId,
    EmulatorSecret,
    EncryptionKey,
    HostNames,
    Licence,
    Megabytes,
    PairedPort,
    Port,
    ProjectName,
    Region,
    RoleArn,
    Seconds,
    Secret,
    SecretKey,
    Url,
    UrlPassword,
    Workers,
    about,
    setting,
    text_of,
)

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
ENV_FILE = ROOT / ".env"
HEADING = "This lab's own settings; .env.example explains them. Not for git: it holds secrets."
# The environment variable that lists the names of the variables that are settings.
NAMES = "LAB_SETTINGS"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """The table, and the values in force. The field `api_port` is the setting API_PORT.

    A secret is empty until `draw` generates it. Read a secret with `secret`, which raises LabError for an empty one.
    """

    engine: Annotated[
        Literal["auto", "docker", "embedded"], about("auto, docker (containers) or embedded (processes)")
    ] = "auto"
    lite: Annotated[bool, about("1 leaves Elasticsearch, Kibana, Logstash, Filebeat and the APM Server out")] = False
    params: Annotated[str, about("the problem: table, features, candidates, choice")] = "params.yaml"
    allowed_hosts: Annotated[
        HostNames, about("further host names for API, dashboard and MLflow besides localhost, separated by commas")
    ] = ""
    api_port: Annotated[Port, about("the API that serves the champion")] = 8000
    api_workers: Annotated[Workers, about("processes of the API")] = 2
    api_key: Annotated[ClientKey, about("the key that a client of the API must send in X-API-Key; empty: no key")] = ""
    events_days: Annotated[Days, about("an event file is deleted this many days after its last event")] = 90
    events_mb: Annotated[
        Megabytes, about("limit for all event files together, in MB; the oldest are deleted first")
    ] = 2000
    environment: Annotated[
        Literal["laptop", "staging", "production"],
        about("which lab or release writes events and traces: laptop, staging or production"),
    ] = "laptop"
    elastic_apm_server_url: Annotated[Url, about("the APM Server that the API sends its traces to; empty: none")] = ""
    dashboard_port: Annotated[Port, about("the dashboard")] = 8501
    mlflow_port: Annotated[Port, about("MLflow: runs, metrics, registry")] = 5000
    s3_port: Annotated[PairedPort, about("S3: datasets, models, ledger")] = 9000
    s3_console_port: Annotated[Port, about("the console of S3, in containers")] = 9001
    aws_target: Annotated[Literal["emulator", "aws"], about("the AWS that releases go to: emulator or aws")] = (
        "emulator"
    )
    aws_region: Annotated[Region, about("the region of AWS_TARGET and of the bucket")] = "us-east-1"
    aws_role_arn: Annotated[RoleArn, about("with AWS_TARGET=aws: a role to assume with the shell's credentials")] = ""
    aws_port: Annotated[Port, about("the stand-in AWS")] = 4566
    aws: Annotated[bool, about("1 starts the stand-in AWS with processes, too; it runs tasks only in containers")] = (
        False
    )
    kibana_port: Annotated[Port, about("Kibana, in containers")] = 5601
    elasticsearch_port: Annotated[Port, about("Elasticsearch, in containers")] = 9200
    apm_port: Annotated[Port, about("the APM Server, in containers")] = 8200
    locust_port: Annotated[Port, about("Locust's page")] = 8089
    dask_port: Annotated[Port, about("the Dask scheduler, in containers")] = 8786
    s3_master_port: Annotated[
        PairedPort, about("an inner port of SeaweedFS, which also takes this port plus 10000")
    ] = 9333
    s3_volume_port: Annotated[
        PairedPort, about("an inner port of SeaweedFS, which also takes this port plus 10000")
    ] = 9340
    s3_filer_port: Annotated[PairedPort, about("an inner port of SeaweedFS, which also takes this port plus 10000")] = (
        8888
    )
    s3_admin_port: Annotated[PairedPort, about("an inner port of SeaweedFS, which also takes this port plus 10000")] = (
        9350
    )
    s3_bucket: Annotated[Bucket, about("the bucket that holds dvc/, mlflow/ and ledger/")] = "lab"
    s3_endpoint_url: Annotated[Url, about("S3 elsewhere; empty means the lab's own")] = ""
    s3_access_key: Annotated[AccessKey, about("the access key id for S3")] = ""
    s3_secret_key: Annotated[SecretKey, about("the secret key for S3")] = ""
    aws_emulator_key_id: Annotated[
        EmulatorKeyId, about("the stand-in AWS: root's access key id, also the user name for its registry")
    ] = ""
    aws_emulator_secret_key: Annotated[
        EmulatorSecret, about("the stand-in AWS: root's secret key, also the password for the registry")
    ] = ""
    postgres_password: Annotated[UrlPassword, about("MLflow's password for PostgreSQL")] = ""
    elastic_password: Annotated[Secret, about("Elasticsearch: the user elastic, which may do anything")] = ""
    reader_password: Annotated[Secret, about("Kibana: the user lab_reader, which may read everything of the lab")] = ""
    kibana_password: Annotated[Secret, about("Elasticsearch: Kibana's own user")] = ""
    logstash_password: Annotated[Secret, about("Elasticsearch: logstash_writer")] = ""
    apm_password: Annotated[Secret, about("Elasticsearch: apm_writer")] = ""
    apm_secret_token: Annotated[Secret, about("the token that the API sends to the APM Server")] = ""
    kibana_encryption_key: Annotated[EncryptionKey, about("the key with which Kibana encrypts its saved objects")] = ""
    compose_project_name: Annotated[
        ProjectName, about("the prefix in the names of containers and volumes; drawn, so that two clones never meet")
    ] = ""
    s3_image: Annotated[str, about("S3: the maintained fork of MinIO")] = "pgsty/silo:RELEASE.2026-10-26T00-00-00Z"
    postgres_image: Annotated[str, about("MLflow's database")] = "postgres:18.1-trixie"
    elastic_version: Annotated[str, about("the version of all images of Elastic")] = "9.5.1"
    aws_emulator_image: Annotated[
        str, about("LocalStack's image in place of MiniStack; localstack/README.md says how")
    ] = ""
    localstack_auth_token: Annotated[Licence, about("the licence for LocalStack")] = ""
    mlflow_url: Annotated[Url, about("MLflow elsewhere; empty means the lab's own")] = ""
    dask_scheduler_address: Annotated[str, about("search on this Dask cluster, e.g. tcp://127.0.0.1:8786")] = ""
    start_seconds: Annotated[Seconds, about("how long `make up` waits for a service, in seconds")] = 300

    def __repr__(self) -> str:
        return "Settings(…)"  # the fields hold secrets

    def secret(self, name: str) -> str:
        """The secret `name`; raises LabError when it has no value yet."""
        value = str(getattr(self, name.lower()))
        if not value:
            raise LabError(f"the secret {name} is not set", f"run `make up`, or set it in {ENV_FILE}")
        return value

    def port(self, name: str) -> int:
        """The port in the setting `name`. Code that loops over several ports uses this method."""
        return int(getattr(self, name.lower()))

    def texts(self) -> dict[str, str]:
        """Every setting as a text by its name, as in `.env`; this is what processes and containers get."""
        return {name: text_of(getattr(self, name.lower())) for name in _BY_NAME}

    @property
    def s3_url(self) -> str:
        return self.s3_endpoint_url or f"http://127.0.0.1:{self.s3_port}"

    @property
    def tracking_url(self) -> str:
        """The address of MLflow."""
        return self.mlflow_url or f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def params_path(self) -> Path:
        path = Path(self.params)
        return path if path.is_absolute() else ROOT / path


SETTINGS = tuple(map(setting, msgspec.structs.fields(Settings)))
_BY_NAME = {each.name: each for each in SETTINGS}


def from_command_line(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings in `environ` (by default the process's own) that LAB_SETTINGS names.

    The Makefile lists the variables of make's command line in LAB_SETTINGS, and the lab lists the variables that it
    passes to its processes. Any other variable with the name of a setting has this name by chance and is not used.
    """
    environ = os.environ if environ is None else environ
    return {name: environ[name] for name in environ.get(NAMES, "").split() if name in _BY_NAME and name in environ}


def ignored(environ: Mapping[str, str] | None = None) -> str:
    """A note on the variables of `environ` that have a setting's name but are not used; empty when there are none."""
    environ = os.environ if environ is None else environ
    names_given = from_command_line(environ)
    values = _texts(names_given)
    names = [name for name in values if name not in names_given and environ.get(name, values[name]) != values[name]]
    note = f"note: the shell's {', '.join(names)} not used; write settings into .env or after make: make up NAME=value"
    return note if names else ""


def load(first: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: from `first` (by default those given to this process), else `.env`, else the table.

    An empty value means the default in the table. Raises LabError for the first setting whose value cannot be used.
    """
    return parse(_texts(from_command_line() if first is None else first))


def load_to_stop() -> Settings:
    """The settings for stopping the lab. A value that cannot be used raises no error, so `make down` always works."""
    try:
        return load()
    except LabError:
        # Only these settings are needed to stop the lab; Compose requires that the secrets have a value.
        needed = {each.name for each in SETTINGS if each.secret} | {"COMPOSE_PROJECT_NAME", "PARAMS"}
        values: dict[str, Any] = {n.lower(): v for n, v in _texts(from_command_line()).items() if n in needed}
        return Settings(**values)


def parse(texts: Mapping[str, str]) -> Settings:
    """The settings with these texts, and with the defaults of all others; raises LabError as `load` does."""
    values = {each.name.lower(): each.parse(texts.get(each.name) or each.default or "") for each in SETTINGS}
    return Settings(**values)


def _texts(first: Mapping[str, str]) -> dict[str, str]:
    content = {**env_file.read(ENV_FILE), **first}
    return {each.name: content.get(each.name) or each.default or "" for each in SETTINGS}


def draw(settings: Settings) -> dict[str, str]:
    """New random values for each secret without a value, and for the project name if it has none."""
    values = {each.name: secrets.token_hex(20) for each in SETTINGS if each.secret}
    values["COMPOSE_PROJECT_NAME"] = f"mlops-lab-{secrets.token_hex(3)}"
    return {name: value for name, value in values.items() if not getattr(settings, name.lower())}


def stored() -> dict[str, str]:
    """The text of every setting: that in `.env`, or the default in the table."""
    return _texts({})


def remember(values: Mapping[str, str]) -> dict[str, str]:
    """Write the values that changed to `.env`, so that the next command finds the same lab.

    Returns the changed values, without secrets.
    """
    before = stored()
    changes = {name: value for name, value in values.items() if value != before[name]}
    if changes:
        env_file.write(ENV_FILE, changes, HEADING)
    # A URL may hold a password.
    return {
        name: "…" if "@" in value else value
        for name, value in changes.items()
        if not _BY_NAME[name].secret and not _BY_NAME[name].hidden
    }


def example() -> str:
    """The text of `.env.example`, which Compose reads before `.env`."""
    lines = ["# Every setting with its default. Write other values into .env, where `make up` adds secrets.", ""]
    for each in SETTINGS:
        value = f"# {each.name}=" if each.secret else f"{each.name}={each.default}"
        lines += [f"# {each.help}", value, ""]
    return "\n".join(lines)
