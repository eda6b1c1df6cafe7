"""HTTP with a limit on every wait."""

from __future__ import annotations

from typing import Any

import msgspec
import urllib3

from lab.errors import LabError

READ_SECONDS = 20.0
_pool = urllib3.PoolManager(
    retries=urllib3.Retry(connect=1, read=0, status=0, redirect=0, other=0, backoff_factor=0.2),
)


class UnreachableError(LabError):
    """The service did not answer."""


class RefusedError(LabError):
    """The service answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, "see `make status` and `make logs`")
        self.status = status


def request(
    method: str, url: str, *, json: Any = None, body: bytes | None = None, timeout: float = READ_SECONDS
) -> bytes:
    """Send a request and give the body of a 2xx answer; raise UnreachableError or RefusedError otherwise."""
    limit = urllib3.Timeout(connect=2, read=timeout)
    headers = {"Content-Type": "application/json"} if json is not None else {}
    if json is not None:
        body = msgspec.json.encode(json)
    try:
        answer = _pool.request(method, url, body=body, headers=headers, timeout=limit)
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(f"nothing usable answers at {url}", "see `make status`; `make up` starts it") from error
    if not 200 <= answer.status < 300:
        raise RefusedError(f"{method} {url} answered {answer.status}: {answer.data[:300]!r}", answer.status)
    return bytes(answer.data)


def get_json(url: str, timeout: float = READ_SECONDS) -> Any:
    return msgspec.json.decode(request("GET", url, timeout=timeout))
