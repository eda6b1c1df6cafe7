"""Refuse requests with a foreign Host, without the key, or for a path that does not exist."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

# The reasons for which a request is refused.
NO_HOST, OTHER_HOST, NO_KEY, NO_ROUTE = "no host", "other host", "no key", "no route"
OTHER_CLIENT = "other client"

ROUTES = frozenset(
    {"/predict", "/predict/batch", "/feedback", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
)
DOCS_FILES = "/docs/"
# Paths that need no key: a load balancer's probes, and the documentation.
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
# A name or an address, with or without a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(?::[0-9]{0,5})?")
# Kinds of Host values: a name or address of this API, another address, another name, or malformed.
OURS, ADDRESS, NAME, WRONG = "ours", "address", "name", "wrong"


class Gate:
    """Decides whether a request is refused, and gives the reason.

    A page can let its own host name resolve to the address of this API (DNS rebinding). The browser then takes the page
    and the API for one origin, and only the Host header shows the difference. With this attack Host is never an
    address, so health probes may have any address in Host: a load balancer sends the address of a container.
    """

    def __init__(self, key: str, hosts: str) -> None:
        """`key` is the key that clients must send, or empty. `hosts` are names without ports, separated by commas."""
        self._key = key.encode()
        self._names = frozenset(name.strip().lower().strip("[]") for name in hosts.split(",") if name.strip())
        # The cache is limited: clients use few hosts in practice, but one client may send any number of them.
        self._kind = lru_cache(maxsize=64)(self._look)

    def __call__(self, environ: dict[str, Any]) -> str:
        """One of the reasons at the top of this module, or an empty string when the request is allowed."""
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
            header = environ.get("HTTP_X_API_KEY", "").encode("latin-1")
            if not hmac.compare_digest(header, self._key):
                return NO_KEY
        return "" if docs or path in ROUTES else NO_ROUTE

    def _look(self, host: str) -> str:
        match = _HOST.fullmatch(host)
        if match is None:
            return WRONG
        name = match[1].strip("[]").lower().rstrip(".")
        try:
            address = ip_address(name)
        except ValueError:
            return OURS if name == "localhost" or name in self._names else NAME
        return OURS if address.is_loopback or name in self._names else ADDRESS
