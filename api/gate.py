"""Which requests are let in: those that ask for this API by a name of its own, bring the key, and want a route."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from api.environ import NO_HOST, NO_KEY, NO_ROUTE, OTHER_HOST

ROUTES = frozenset(
    {"/predict", "/predict/batch", "/feedback", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
)
DOCS_FILES = "/docs/"
# What needs no key: a load balancer's probes, and what only describes the rest.
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
# A name or an address, with or without a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(?::[0-9]{0,5})?")
# What a host is: one of ours, another address, another name, or nothing that a host may be.
OURS, ADDRESS, NAME, WRONG = "ours", "address", "name", "wrong"


class Gate:
    """Says why a request is refused, if it is.

    A page can give a name of its own the address of this API (DNS rebinding): the browser then takes both for one
    origin, and only the Host header tells the difference. An address as Host cannot come about that way. Load
    balancers put the address of a container there when they look whether it is well.
    """

    def __init__(self, key: str, hosts: str) -> None:
        """`key` is asked for when there is one; `hosts` are names without ports, with commas between."""
        self._key = key.encode()
        self._names = frozenset(name.strip().lower().strip("[]") for name in hosts.split(",") if name.strip())
        # Few in practice; a client may send any.
        self._kind = lru_cache(maxsize=64)(self._look)

    def __call__(self, environ: dict[str, Any]) -> str:
        """A fault of `api.environ`, or nothing."""
        path = environ["PATH_INFO"]
        host = environ.get("HTTP_HOST", "")
        if not host:
            if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
                return NO_HOST
        elif (kind := self._kind(host)) != OURS:
            if kind == WRONG:
                return NO_HOST
            if not (path == "/healthz" or (path == "/readyz" and kind == ADDRESS)):
                return OTHER_HOST
        docs = path.startswith(DOCS_FILES)
        if self._key and not (docs or path in OPEN):
            given = environ.get("HTTP_X_API_KEY", "").encode("latin-1")
            if not hmac.compare_digest(given, self._key):
                return NO_KEY
        return "" if docs or path in ROUTES else NO_ROUTE

    def _look(self, host: str) -> str:
        found = _HOST.fullmatch(host)
        if found is None:
            return WRONG
        name = found[1].strip("[]").lower().rstrip(".")
        try:
            address = ip_address(name)
        except ValueError:
            return OURS if name == "localhost" or name in self._names else NAME
        return OURS if address.is_loopback or name in self._names else ADDRESS
