"""A guard before a web application. It refuses requests with a foreign Host or from a page of another origin.

A browser lets any page send requests to 127.0.0.1. A page whose host name resolves to 127.0.0.1 even has the same
origin as this service (DNS rebinding). MLflow's image contains only this module and `lab.errors`, so this module
imports nothing else of the lab.
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
    """The comma-separated names in the setting ALLOWED_HOSTS, and those of the loopback interface.

    Raises LabError for a text that is not a host name, such as a name with a port, a scheme or a wildcard.
    """
    names = {name.strip().lower() for name in text.split(",")} - {""}
    for name in names:
        if host_name(name) != name:
            raise LabError(
                f"ALLOWED_HOSTS holds {name!r}, which is not a host name",
                "give names without scheme and port, with commas between them: ALLOWED_HOSTS=lab.example.com",
            )
    return LOOPBACK | names


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without its port; empty when the header is malformed."""
    match = _HOST.fullmatch(host.lower())
    return match[1] if match else ""


class Guard:
    """An ASGI application that passes requests of programs and of its own pages to `app`, and answers 403 to others.

    `Host` must be one of `hosts`. A browser sends `Origin` with every request that could change something. `Origin`
    must equal `Host`, or be one of `hosts` that is not a loopback name: on the loopback each port belongs to another
    program. No page of another origin may show these pages in a frame, which would allow clickjacking.
    """

    def __init__(self, app: Application, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        reason = self._fault(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self.app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await receive()  # a server answers the handshake with 403 when the application closes it
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
    """`send` with a header on each response, so that browsers do not show the response in frames of other origins."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = (b"content-security-policy", b"frame-ancestors 'self'")
            message = {**message, "headers": [*message.get("headers", ()), policy]}
        await send(message)

    return sending
