"""HTTP with a limit on every wait."""

from __future__ import annotations

from typing import Any

import msgspec
import urllib3

from lab.errors import LabError

_pool = urllib3.PoolManager(
    timeout=urllib3.Timeout(connect=2, read=20),
    retries=urllib3.Retry(connect=1, read=0, status=0, redirect=0, other=0, backoff_factor=0.2),
)


class Unreachable(LabError):
    """The service did not answer."""


class Refused(LabError):
    """The service answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, "see `make status` and `make logs`")
        self.status = status


def request(
    method: str, url: str, *, json: Any = None, body: bytes | None = None, timeout: float | None = None
) -> bytes:
    """Send a request and give the body of a 2xx answer; raise Unreachable or Refused otherwise."""
    headers = {"Content-Type": "application/json"} if json is not None else {}
    try:
        answer = _pool.request(
            method,
            url,
            body=msgspec.json.encode(json) if json is not None else body,
            headers=headers,
            **({"timeout": timeout} if timeout else {}),
        )
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"nothing usable answers at {url}", "see `make status`; `make up` starts it") from error
    if not 200 <= answer.status < 300:
        raise Refused(f"{method} {url} answered {answer.status}: {answer.data[:300]!r}", answer.status)
    return bytes(answer.data)


def get_json(url: str, timeout: float | None = None) -> Any:
    return msgspec.json.decode(request("GET", url, timeout=timeout))
