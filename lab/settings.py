"""Every setting of the lab in one table, with functions that read `.env`, write it, and print the help.

A value comes from the command line, else from `.env`, else from the table. Secrets have no default: `draw` generates
them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import env_file
from lab.errors import LabError

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
ENV_FILE = ROOT / ".env"
HEADING = "This lab's own settings; .env.example explains them. Not for git: it holds secrets."
# This variable of the environment lists the names of the variables that are settings.
NAMES = "LAB_SETTINGS"


@dataclass(frozen=True)
class Setting:
    """A row of the table. `default` is None for a secret, which is drawn and never shown; nor is a hidden one."""

    name: str
    default: str | None
    help: str
    hidden: bool = False

    @property
    def secret(self) -> bool:
        return self.default is None

    @property
    def port(self) -> bool:
        return self.name.endswith("_PORT")


SETTINGS = (
    Setting("ENGINE", "auto", "auto, docker (containers) or embedded (processes)"),
    Setting("LITE", "0", "1 leaves Elasticsearch, Kibana, Logstash, Filebeat and the APM Server out"),
    Setting("PARAMS", "params.yaml", "the problem: table, features, candidates, choice"),
    Setting(
        "ALLOWED_HOSTS", "", "further host names for API, dashboard and MLflow besides localhost, separated by commas"
    ),
    Setting("API_PORT", "8000", "the API that serves the champion"),
    Setting("API_WORKERS", "2", "processes of the API"),
    Setting("API_KEY", "", "the key that a client of the API must send in X-API-Key; empty: no key", hidden=True),
    Setting("EVENTS_DAYS", "90", "an event file is deleted this many days after its last event"),
    Setting("EVENTS_MB", "2000", "limit for all event files together, in MB; the oldest are deleted first"),
    Setting("ENVIRONMENT", "laptop", "which lab or release writes events and traces: laptop, staging or production"),
    Setting("ELASTIC_APM_SERVER_URL", "", "the APM Server that the API sends its traces to; empty: none"),
    Setting("DASHBOARD_PORT", "8501", "the dashboard"),
    Setting("MLFLOW_PORT", "5000", "MLflow: runs, metrics, registry"),
    Setting("S3_PORT", "9000", "S3: datasets, models, ledger"),
    Setting("S3_CONSOLE_PORT", "9001", "its console, in containers"),
    Setting("AWS_PORT", "4566", "the stand-in AWS"),
    Setting("AWS", "0", "1 starts the stand-in AWS with processes, too; it runs tasks only in containers"),
    Setting("KIBANA_PORT", "5601", "Kibana, in containers"),
    Setting("ELASTICSEARCH_PORT", "9200", "Elasticsearch, in containers"),
    Setting("APM_PORT", "8200", "the APM Server, in containers"),
    Setting("LOCUST_PORT", "8089", "Locust's page"),
    Setting("DASK_PORT", "8786", "the Dask scheduler, in containers"),
    Setting("S3_MASTER_PORT", "9333", "SeaweedFS inside; this port and the same plus 10000"),
    Setting("S3_VOLUME_PORT", "9340", "SeaweedFS inside; this port and the same plus 10000"),
    Setting("S3_FILER_PORT", "8888", "SeaweedFS inside; this port and the same plus 10000"),
    Setting("S3_ADMIN_PORT", "9350", "SeaweedFS inside; this port and the same plus 10000"),
    Setting("S3_BUCKET", "lab", "the bucket that holds dvc/, mlflow/ and ledger/"),
    Setting("S3_ENDPOINT_URL", "", "S3 elsewhere; empty means the lab's own"),
    Setting("S3_ACCESS_KEY", None, "who signs in to S3"),
    Setting("S3_SECRET_KEY", None, "the password for it"),
    Setting("AWS_EMULATOR_KEY_ID", None, "the stand-in AWS: root's access key id, also the user name for its registry"),
    Setting("AWS_EMULATOR_SECRET_KEY", None, "the secret key for it, also the password for the registry"),
    Setting("POSTGRES_PASSWORD", None, "MLflow's password for PostgreSQL"),
    Setting("ELASTIC_PASSWORD", None, "Elasticsearch: the user elastic, who may do anything"),
    Setting("READER_PASSWORD", None, "Kibana: lab_reader, who may look at everything of the lab"),
    Setting("KIBANA_PASSWORD", None, "Elasticsearch: Kibana's own user"),
    Setting("LOGSTASH_PASSWORD", None, "Elasticsearch: logstash_writer"),
    Setting("APM_PASSWORD", None, "Elasticsearch: apm_writer"),
    Setting("APM_SECRET_TOKEN", None, "what the API brings to the APM Server"),
    Setting("KIBANA_ENCRYPTION_KEY", None, "Kibana's key for what it keeps"),
    Setting(
        "COMPOSE_PROJECT_NAME", "", "what containers and volumes are called by; drawn, so that two clones never meet"
    ),
    Setting("S3_IMAGE", "pgsty/silo:RELEASE.2026-10-26T00-00-00Z", "S3: the maintained fork of MinIO"),
    Setting("POSTGRES_IMAGE", "postgres:18.1-trixie", "MLflow's database"),
    Setting("ELASTIC_VERSION", "9.5.1", "of all of Elastic's images"),
    Setting("AWS_EMULATOR_IMAGE", "", "LocalStack's image in place of MiniStack; localstack/README.md says how"),
    Setting("LOCALSTACK_AUTH_TOKEN", "", "the licence for it", hidden=True),
    Setting("MLFLOW_URL", "", "MLflow elsewhere; empty means the lab's own"),
    Setting("DASK_SCHEDULER_ADDRESS", "", "search on this Dask cluster, e.g. tcp://127.0.0.1:8786"),
    Setting("START_SECONDS", "300", "how long `make up` waits for a service"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
# SeaweedFS listens for gRPC this far above each of its HTTP ports.
GRPC_OFFSET = 10_000


@dataclass(frozen=True)
class Settings:
    """The values in force. `settings["API_PORT"]` is a string; `settings.port("API_PORT")` an int."""

    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        value = self.values.get(name, "")
        if not value and _BY_NAME[name].secret:
            raise LabError(f"the secret {name} is not set", f"run `make up`, or set it in {ENV_FILE}")
        return value

    @property
    def lite(self) -> bool:
        """Whether the Elastic part is left out."""
        return bool(self.number("LITE", 0, 1))

    def port(self, name: str) -> int:
        return self.number(name, 1, 65_535)

    def number(self, name: str, low: int, high: int) -> int:
        """Give the setting as an int within [low, high]; raise LabError otherwise."""
        text = self[name]
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise LabError(
                f"{name} is {text!r}, which is not a whole number from {low} to {high}",
                f"give another value: make up {name}=…, or correct it in {ENV_FILE}",
            )
        return int(text)

    @property
    def s3_url(self) -> str:
        return self["S3_ENDPOINT_URL"] or f"http://127.0.0.1:{self.port('S3_PORT')}"

    @property
    def mlflow_url(self) -> str:
        return self["MLFLOW_URL"] or f"http://127.0.0.1:{self.port('MLFLOW_PORT')}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port('API_PORT')}"

    @property
    def params(self) -> Path:
        path = Path(self["PARAMS"])
        return path if path.is_absolute() else ROOT / path


def from_command_line(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings in `environ` (by default the process's own) that LAB_SETTINGS names.

    The Makefile lists the variables of make's command line there, and the lab those for the processes that it starts.
    Any other variable that has a setting's name has it by chance.
    """
    environ = os.environ if environ is None else environ
    return {name: environ[name] for name in environ.get(NAMES, "").split() if name in _BY_NAME and name in environ}


def ignored(environ: Mapping[str, str] | None = None) -> str:
    """A note on the variables of `environ` that have a setting's name but are not used; empty when there are none."""
    environ = os.environ if environ is None else environ
    names_given = from_command_line(environ)
    values = load(names_given).values
    names = [name for name in values if name not in names_given and environ.get(name, values[name]) != values[name]]
    note = f"note: the shell's {', '.join(names)} not used; a setting stands in .env or after make: make up NAME=value"
    return note if names else ""


def load(first: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: from `first` (by default those given to this process), else `.env`, else the table.

    An empty value stands for the table's.
    """
    values = {**env_file.read(ENV_FILE), **(from_command_line() if first is None else first)}
    return Settings({s.name: values.get(s.name) or s.default or "" for s in SETTINGS})


def draw(settings: Settings) -> dict[str, str]:
    """Fresh values for the secrets and the project name that are not set yet."""
    values = {s.name: secrets.token_hex(20) for s in SETTINGS if s.secret}
    values["COMPOSE_PROJECT_NAME"] = f"mlops-lab-{secrets.token_hex(3)}"
    return {name: value for name, value in values.items() if not settings.values[name]}


def remember(values: Mapping[str, str]) -> dict[str, str]:
    """Write the values that changed to `.env`, so that the next command finds the same lab.

    Returns the changed values, without secrets.
    """
    content = env_file.read(ENV_FILE)
    before = {s.name: content.get(s.name) or s.default or "" for s in SETTINGS}
    changes = {name: value for name, value in values.items() if value != before[name]}
    if changes:
        env_file.write(ENV_FILE, changes, HEADING)
    # A URL may hold a password.
    return {
        n: "…" if "@" in value else value
        for n, value in changes.items()
        if not _BY_NAME[n].secret and not _BY_NAME[n].hidden
    }


def example() -> str:
    """The text of `.env.example`, which Compose reads before `.env`."""
    lines = ["# Every setting and its default. What differs goes into .env; `make up` draws the secrets there.", ""]
    for setting in SETTINGS:
        value = f"# {setting.name}=" if setting.secret else f"{setting.name}={setting.default}"
        lines += [f"# {setting.help}", value, ""]
    return "\n".join(lines)
