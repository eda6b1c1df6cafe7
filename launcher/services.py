"""The services of the lab, one row each, with their health checks."""

from __future__ import annotations

from dataclasses import dataclass

from lab import http
from lab.setting_types import GRPC_OFFSET
from lab.settings import Settings


@dataclass(frozen=True)
class Service:
    """A service. supervisord and Compose use the same `name`. `inner` are SeaweedFS's inner ports, `more` others."""

    name: str
    title: str
    port: str
    health: str
    sign_in: str
    inner: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def url(self, settings: Settings) -> str:
        return f"http://127.0.0.1:{settings.port(self.port)}"

    def healthy(self, settings: Settings, timeout: float = 2) -> bool:
        try:
            http.request("GET", self.url(settings) + self.health, timeout=timeout)
        except http.RefusedError as error:
            return error.status == 401  # a healthy service that asks for a user gives this status
        except http.UnreachableError:
            return False
        return True

    def ports(self, settings: Settings) -> list[tuple[int, str]]:
        """Every port that the service listens on, with the setting that determines it. A port may occur twice."""
        pairs = [(settings.port(name), name) for name in (self.port, *self.more, *self.inner)]
        if self.inner:
            grpc = (self.port, *self.inner)
            pairs += [(settings.port(name) + GRPC_OFFSET, name) for name in grpc]
        return pairs


_API = Service("api", "API", "API_PORT", "/healthz", "open")
_DASHBOARD = Service("dashboard", "Dashboard", "DASHBOARD_PORT", "/_stcore/health", "open")
_MLFLOW = Service("mlflow", "MLflow", "MLFLOW_PORT", "/health", "open")
_AWS_KEYS = "AWS_EMULATOR_KEY_ID, AWS_EMULATOR_SECRET_KEY in .env"
_AWS = Service("aws", "AWS stand-in", "AWS_PORT", "/_ministack/health", _AWS_KEYS)
_S3_KEYS = "S3_ACCESS_KEY, S3_SECRET_KEY in .env"
_SEAWEEDFS = ("S3_MASTER_PORT", "S3_VOLUME_PORT", "S3_FILER_PORT", "S3_ADMIN_PORT")
# S3 as a process, then in containers: another program, which has a console.
SERVICES = (_API, _DASHBOARD, _MLFLOW, Service("s3", "S3", "S3_PORT", "/healthz", _S3_KEYS, inner=_SEAWEEDFS), _AWS)
CONTAINERS = (
    _API,
    _DASHBOARD,
    _MLFLOW,
    Service("s3", "S3", "S3_PORT", "/minio/health/ready", _S3_KEYS, more=("S3_CONSOLE_PORT",)),
    _AWS,
)
ELASTIC = (
    Service("kibana", "Kibana", "KIBANA_PORT", "/api/status", "lab_reader, READER_PASSWORD in .env"),
    Service("elasticsearch", "Elasticsearch", "ELASTICSEARCH_PORT", "/", "elastic, ELASTIC_PASSWORD in .env"),
    Service("apm-server", "APM Server", "APM_PORT", "/", "APM_SECRET_TOKEN in .env"),
)


def processes(settings: Settings) -> list[Service]:
    """The services that run as processes; the stand-in AWS only with AWS=1, since its tasks need containers."""
    return [service for service in SERVICES if service is not _AWS or settings.aws]
