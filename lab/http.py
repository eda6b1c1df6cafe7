"""HTTP with a limit on every wait."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import urllib3

from lab.errors import LabError

READ_SECONDS = 20.0
# Limits of a whole answer, in seconds and in bytes.
WHOLE_SECONDS, MOST_BYTES = 120.0, 16 * 2**20
_pool = urllib3.PoolManager(
    retries=urllib3.Retry(connect=1, read=0, status=0, redirect=0, other=0, backoff_factor=0.2),
)


class UnreachableError(LabError):
    """The service did not answer."""


class TooLargeError(LabError):
    """The answer is larger than the limit; the rest was not read."""


class RefusedError(LabError):
    """The service answered with an error: `status` is that of HTTP, `code` MLflow's error code, if any."""

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message, "see `make status` and `make logs`")
        self.status, self.code = status, ""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            answer = msgspec.json.decode(body)
            self.code = str(answer.get("error_code", "")) if isinstance(answer, dict) else ""


def request(
    method: str,
    url: str,
    *,
    json: Any = None,
    body: bytes | None = None,
    key: str = "",
    client: str = "",
    timeout: float = READ_SECONDS,
    most: int = MOST_BYTES,
) -> bytes:
    """Send a request and return the body of a 2xx answer of at most `most` bytes.

    `key` is sent as X-API-Key and `client` as X-Client, unless empty. Raises UnreachableError, RefusedError or
    TooLargeError.
    """
    limit = urllib3.Timeout(connect=2, read=timeout)
    headers = {"Content-Type": "application/json"} if json is not None else {}
    if key:
        headers["X-API-Key"] = key
    if client:
        headers["X-Client"] = client
    if json is not None:
        body = msgspec.json.encode(json)
    try:
        answer = _pool.request(method, url, body=body, headers=headers, timeout=limit, preload_content=False)
        data = _read(answer, url, most)
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(f"nothing usable answers at {url}", "see `make status`; `make up` starts it") from error
    if not 200 <= answer.status < 300:
        raise RefusedError(f"{method} {url} answered {answer.status}: {data[:300]!r}", answer.status, data)
    return data


def _read(answer: urllib3.BaseHTTPResponse, url: str, most: int) -> bytes:
    data, end = bytearray(), time.monotonic() + WHOLE_SECONDS
    try:
        while part := answer.read1(min(most + 1 - len(data), 2**16)):
            data += part
            if len(data) > most:
                raise TooLargeError(f"{url} has more than {most / 2**20:g} MB", "look at what is stored there")
            if time.monotonic() > end:
                raise UnreachableError(f"{url} took more than {WHOLE_SECONDS:.0f} s", "see `make status`")
    except LabError:
        answer.close()
        raise
    answer.release_conn()
    return bytes(data)


def get_json(url: str, timeout: float = READ_SECONDS, key: str = "") -> Any:
    """GET a JSON value; raise UnreachableError or RefusedError, also when the answer is not JSON."""
    return decode(url, request("GET", url, timeout=timeout, key=key))


def direct(*urls: str) -> dict[str, str]:
    """NO_PROXY for libraries that use the shell's proxy: the loopback, the hosts of `urls`, and its old value."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ["127.0.0.1", "localhost", "::1", *(urlsplit(url).hostname or "" for url in urls)]
    value = "*" if before.strip() == "*" else ",".join(dict.fromkeys(filter(None, (*hosts, before))))
    return {"NO_PROXY": value, "no_proxy": value}


def decode(url: str, body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreachableError(f"{url} does not answer in JSON", "see whether another program has that port") from error
