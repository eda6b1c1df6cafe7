"""The guard in front of MiniStack: an ASGI application that passes on only requests with valid credentials.

With AUTH=true MiniStack evaluates policies, but a guard is still needed. MiniStack treats the key id `test`, any key id
of twelve digits, and a request without a key as root. It does not check root's signatures, and it leaves its own paths,
the registry and its websockets open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from ministack import app as ministack
from ministack.core.iam_evaluator import AuthError
from ministack.core.responses import set_request_account_id, set_request_client_ip, set_request_region
from ministack.core.router import detect_service
from ministack.services import alb, ecr

from localstack.signature import RefusedError, Request, Signed, claim

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger("guard")
HEALTH = "/_ministack/health"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+?)\.?(:\d{1,5})?")
# Header fields that may occur only once, because the guard and MiniStack could read two values in different ways.
SINGLE = {
    *("host", "origin", "sec-fetch-site", "authorization", "content-type", "content-length"),
    *("x-amz-date", "x-amz-security-token", "x-amz-target", "x-amz-content-sha256"),
}
# The size limit of a request to a load balancer, which asks for no key. The API accepts 16 MiB.
BALANCED_BYTES = 32 * 2**20
TOKEN_SECONDS = 12 * 3600


class ClosedError(Exception):
    """The request is refused, with this status, reason and further headers."""

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class Guard:
    """The application `inner` behind the checks. `key_id` and `secret` are root's, and also sign in to the registry."""

    def __init__(self, inner: Application, key_id: str, secret: str) -> None:
        self.inner, self.key_id, self.secret = inner, key_id, secret
        # Replaced because MiniStack's own token is the same on every machine.
        ecr._get_authorization_token = self._authorization_token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
        elif scope["type"] == "http":
            try:
                await self._serve(scope, receive, send)
            except ClosedError as refusal:
                log.warning("refused: %s", refusal)
                content = json.dumps({"message": str(refusal)}).encode()
                await _answer(send, refusal.status, content, {"Content-Type": "application/json", **refusal.headers})
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        fields, path = _fields(scope), scope["path"]
        host = _host(fields, scope)
        _same_origin(fields)
        if balancer := _balancer(host):
            await _balance(balancer, scope, fields, receive, send)
            return
        if host not in (*LOOPBACK, (scope.get("server") or ("",))[0]):
            raise ClosedError(403, f"{host} is not a host name of the stand-in AWS")
        if path == HEALTH and scope["method"] in ("GET", "HEAD"):
            await self.inner(scope, receive, send)
            return
        if path.strip("/").startswith("_"):
            raise ClosedError(403, "paths that begin with an underscore are closed, except the health check")
        if ministack._is_ecr_registry_path(path):
            self._check_basic(fields)
            await self.inner(scope, receive, send)
            return
        await self._signed(scope, fields, receive, send)

    async def _signed(self, scope: Message, fields: dict[str, str], receive: Receive, send: Send) -> None:
        """Pass a request with a valid signature on; answer any other with an error in the form of its AWS service."""
        query = _query(scope)
        request = Request(scope["method"], scope["raw_path"].decode("latin-1"), query, fields)
        try:
            signature = claim(request, self.key_id)
            # The body is read only for a known key.
            body = await _body(receive)
            signature.check(body)
            _only_s3(signature, scope, fields, query, body)
        except RefusedError as refusal:
            if refusal.code == "MissingAuthenticationToken":
                raise ClosedError(403, str(refusal)) from refusal
            service = detect_service(scope["method"], scope["path"], fields, query)
            error = AuthError(refusal.code, str(refusal))
            status, headers, content = ministack._credential_failure(service, "", "guard", error, fields)
            log.warning("refused: %s %s: %s", scope["method"], service, refusal.code)
            await _answer(send, status, content, headers)
            return
        await self.inner(scope, _again(body, receive), send)

    def _check_basic(self, fields: dict[str, str]) -> None:
        """Raise ClosedError unless this is the key and its secret, or `AWS` and a token of the ECR API."""
        kind, _, coded = fields.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(coded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            user = password = b""
        if kind.lower() == "basic":
            root = _equal(user, self.key_id.encode()) & _equal(password, self.secret.encode())
            if root or (user == b"AWS" and self._is_token(password)):
                return
        why = "sign in to the registry with AWS_EMULATOR_KEY_ID and AWS_EMULATOR_SECRET_KEY of .env"
        raise ClosedError(401, why, **{"WWW-Authenticate": 'Basic realm="the stand-in AWS"'})

    def _token(self, end: int) -> str:
        return f"{end}.{hmac.new(self.secret.encode(), f'registry {end}'.encode(), hashlib.sha256).hexdigest()}"

    def _is_token(self, password: bytes) -> bool:
        end = password.partition(b".")[0]
        return (
            end.isdigit()
            and len(end) < 12
            and _equal(password, self._token(int(end)).encode())
            and time.time() < int(end)
        )

    def _authorization_token(self, _data: object) -> tuple[int, dict[str, str], bytes]:
        """ECR's GetAuthorizationToken: a token for the registry that is valid for twelve hours, as on AWS."""
        end = int(time.time()) + TOKEN_SECONDS
        coded = base64.b64encode(f"AWS:{self._token(end)}".encode()).decode()
        proxy = f"https://{ecr._registry_id()}.dkr.ecr.{ecr.get_region()}.amazonaws.com"
        data = {"authorizationToken": coded, "expiresAt": end, "proxyEndpoint": proxy}
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps({"authorizationData": [data]}).encode()


def _fields(scope: Message) -> dict[str, str]:
    """The headers by lower-case name; raise ClosedError for a request that is ambiguous."""
    if scope["http_version"] != "1.1":
        raise ClosedError(505, "HTTP/1.1 only")
    if not scope["path"].startswith("/"):
        raise ClosedError(400, "the path must begin with a slash")
    fields: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in fields and name in SINGLE:
            raise ClosedError(400, f"the header {name} is given twice")
        text = ministack.decode_header_value(value)
        between = "; " if name == "cookie" else ","
        fields[name] = f"{fields[name]}{between}{text}" if name in fields else text
    return fields


def _host(fields: dict[str, str], scope: Message) -> str:
    """The name in Host without its port, in lower case."""
    match = HOST.fullmatch(fields.get("host", "").lower())
    if not match:
        raise ClosedError(400, f"{scope['method']} without a valid Host")
    return match[1]


def _same_origin(fields: dict[str, str]) -> None:
    """Raise ClosedError for a request from a page of another origin, such as another port of this machine."""
    origin, site = fields.get("origin"), fields.get("sec-fetch-site", "none")
    if origin is not None and origin.lower() != f"http://{fields['host'].lower()}":
        raise ClosedError(403, "a page of another origin may not use the stand-in AWS")
    if site not in ("none", "same-origin"):
        raise ClosedError(403, f"a page may not use the stand-in AWS: Sec-Fetch-Site is {site}")


def _query(scope: Message) -> dict[str, list[str]]:
    try:
        return parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True)
    except ValueError as error:
        raise ClosedError(400, "the query is not ASCII") from error


def _balancer(host: str) -> dict[str, Any] | None:
    """The load balancer that has this name."""
    if not ministack._is_potential_alb_request(host, ""):
        return None
    set_request_account_id("")
    # NAME-ID.REGION.elb.amazonaws.com
    set_request_region(host.split(".")[-4] if host.endswith(".elb.amazonaws.com") else None)
    balancer: dict[str, Any] | None = alb.find_lb_for_host(host)
    return balancer


async def _balance(
    balancer: dict[str, Any], scope: Message, fields: dict[str, str], receive: Receive, send: Send
) -> None:
    """Pass a request to the load balancer directly, so that its host name gives access to nothing else."""
    client, port = (scope.get("client") or ("127.0.0.1",))[0], fields["host"].rpartition(":")[2]
    set_request_client_ip(client)
    response = await alb.dispatch_request(
        balancer,
        scope["method"],
        scope["path"],
        fields,
        await _body(receive, BALANCED_BYTES),
        _query(scope),
        int(port) if port.isdigit() else 80,
        raw_query_string=scope["query_string"].decode("latin-1"),
        raw_path=scope["raw_path"].decode("latin-1"),
    )
    await ministack._send_if_handled(send, response, receive)


def _only_s3(
    signature: Signed, scope: Message, fields: dict[str, str], query: dict[str, list[str]], body: bytes
) -> None:
    """Refuse a presigned S3 URL for another service: the body is not signed, and could name that service."""
    if signature.body_is_free:
        parameters = ministack._routing_params(scope["method"], scope["path"], fields, body, query)
        if detect_service(scope["method"], scope["path"], fields, parameters) != "s3":
            raise RefusedError("SignatureDoesNotMatch", "this URL was signed for S3 only")


async def _body(receive: Receive, limit: int = 0) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClosedError(400, "the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if limit and size > limit:
            raise ClosedError(413, f"more than {limit} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first gives the body, which was read already, and then the later messages."""
    parts = [body]

    async def again() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    """Send a refusal and close the connection, because the request's body may not have been read."""
    headers = {**headers, "Content-Length": str(len(content)), "Connection": "close"}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def _equal(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
