"""A guard before a web application: it refuses a foreign Host, and requests that a page of another origin sends.

A browser lets any page send requests to 127.0.0.1, and a name that its owner points at 127.0.0.1 makes the page there
and this service one origin (DNS rebinding). It imports nothing heavy: MLflow's image has this file and no other of the
lab but `errors`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lab.errors import LabError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"([a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def allowed_hosts(text: str) -> frozenset[str]:
    """The names in the setting ALLOWED_HOSTS, which commas separate, and those of the loopback.

    Raises LabError for what is no host name: one with a port or a scheme, or a wildcard.
    """
    names = {name.strip().lower() for name in text.split(",")} - {""}
    for name in names:
        if host_name(name) != name:
            raise LabError(
                f"ALLOWED_HOSTS holds {name!r}, which is no host name",
                "give names without scheme and port, with commas between them: ALLOWED_HOSTS=lab.example.com",
            )
    return LOOPBACK | names


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without its port; empty when the header is malformed."""
    match = _HOST.fullmatch(host.lower())
    return match[1] if match else ""


class Guard:
    """An ASGI application that passes on to `app` what its own pages and programs send, and answers 403 to the rest.

    `Host` must be one of `hosts`. An `Origin`, which a browser sends with whatever a page may change things by, must
    be the same as `Host`, or one of `hosts` that is not of the loopback: there each port is another program's. No page
    of another origin may show these pages in a frame, where a click meant for that page would be a click here.
    """

    def __init__(self, app: Application, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        reason = self._fault(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self.app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await receive()  # the handshake, which a server answers with 403 when it is closed
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode() + b"\n"})

    def _fault(self, scope: Message) -> str:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 or host_name(hosts[0]) not in self.hosts:
            return "This host name is not allowed. What to do: add it to ALLOWED_HOSTS in .env, then run make up."
        if not all(self._own(origin, hosts[0]) for origin in origins):
            return "Pages of another origin may not use this service."
        return ""

    def _own(self, origin: str, host: str) -> bool:
        address = origin.partition("://")[2].lower()
        return address == host.lower() or host_name(address) in self.hosts - LOOPBACK


def _unframed(send: Send) -> Send:
    """`send`, with a header on each response that keeps it out of foreign frames."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = (b"content-security-policy", b"frame-ancestors 'self'")
            message = {**message, "headers": [*message.get("headers", ()), policy]}
        await send(message)

    return sending
