"""The services of the lab: one row each, and how to tell that one is well."""

from __future__ import annotations

from dataclasses import dataclass

from lab import http
from lab.settings import GRPC_OFFSET, Settings


@dataclass(frozen=True)
class Service:
    """`name` is also its name under supervisord and Compose. `inner` are ports only it uses."""

    name: str
    title: str
    port: str
    health: str
    sign_in: str
    inner: tuple[str, ...] = ()

    def url(self, settings: Settings) -> str:
        return f"http://127.0.0.1:{settings.port(self.port)}"

    def healthy(self, settings: Settings, timeout: float = 2) -> bool:
        try:
            http.request("GET", self.url(settings) + self.health, timeout=timeout)
        except (http.UnreachableError, http.RefusedError):
            return False
        return True

    def ports(self, settings: Settings) -> dict[int, str]:
        """Every port it listens on, with the setting that moves it."""
        found = {settings.port(self.port): self.port}
        for name in self.inner:
            found |= {settings.port(name): name, settings.number(name, 1, 55_535) + GRPC_OFFSET: name}
        if self.inner:
            found[settings.number(self.port, 1, 55_535) + GRPC_OFFSET] = self.port
        return found


SERVICES = (
    Service("api", "API", "API_PORT", "/healthz", "open"),
    Service("dashboard", "Dashboard", "DASHBOARD_PORT", "/_stcore/health", "open"),
    Service("mlflow", "MLflow", "MLFLOW_PORT", "/health", "open"),
    Service(
        "s3",
        "S3",
        "S3_PORT",
        "/healthz",
        "S3_ACCESS_KEY, S3_SECRET_KEY in .env",
        ("S3_MASTER_PORT", "S3_VOLUME_PORT", "S3_FILER_PORT", "S3_ADMIN_PORT"),
    ),
    Service("aws", "AWS stand-in", "AWS_PORT", "/_ministack/health", "any key and secret"),
)
