"""The limits for the API under load, Locust's figures, and the comparison of both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lab.errors import LabError

FILE = Path(__file__).parent / "slo.yaml"


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits: the share of requests that may fail, and each route's p99 in ms."""

    failed_share: Annotated[float, Meta(ge=0, le=1)]
    p99_ms: Annotated[dict[str, Annotated[float, Meta(gt=0)]], Meta(min_length=1)]


class Route(msgspec.Struct, frozen=True):
    """Locust's figures of a route; `p99_ms` includes failed requests."""

    requests: int
    failures: int
    p99_ms: float


class Figures(msgspec.Struct, frozen=True):
    """A run: its routes by name, and the number of exceptions in the locustfile, which would hide requests."""

    routes: dict[str, Route]
    exceptions: int

    @property
    def requests(self) -> int:
        return sum(route.requests for route in self.routes.values())

    @property
    def failures(self) -> int:
        return sum(route.failures for route in self.routes.values())


def read(path: Path = FILE) -> Slo:
    """Read the limits; raise LabError that names the place in the file."""
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Slo)
    except msgspec.DecodeError as error:
        raise LabError(f"{path}: {error}", "correct it there; $ is the top of the file") from error


def faults(limits: Slo, run: Figures) -> list[str]:
    """Each limit that is broken, as a sentence."""
    if not run.requests:
        return ["no request was made"]
    violations = []
    if run.exceptions:
        violations.append(f"the locustfile raised {run.exceptions} times; the report says where")
    share = run.failures / run.requests
    if share > limits.failed_share:
        violations.append(
            f"{run.failures} of {run.requests} requests failed, {share:.2%}; the limit is {limits.failed_share:.2%}"
        )
    for name, limit in limits.p99_ms.items():
        route = run.routes.get(name)
        if route is None or not route.requests:
            violations.append(f"there was no request to {name}")
        elif route.p99_ms > limit:
            violations.append(f"p99 of {name} is {route.p99_ms:g} ms; the limit is {limit:g} ms")
    return violations
