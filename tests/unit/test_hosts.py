"""The guard before the dashboard and MLflow."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import settings
from lab.errors import LabError
from lab.hosts import LOOPBACK, Guard, allowed_hosts, host_name
from launcher.preflight import check_sockets

OURS = allowed_hosts("lab.example.com")


def ask(*headers: tuple[str, str], kind: str = "http") -> list[dict]:
    """The messages of a guard with one host; an empty list when the guard passes the request on."""
    messages: list[dict] = []

    async def app(scope, receive, send):
        pass

    async def receive():
        return {"type": f"{kind}.connect"}

    async def send(message):
        messages.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(Guard(app, OURS)(scope, receive, send))
    return messages


def refused(*headers: tuple[str, str]) -> bool:
    """Whether the guard refuses; it must decide in the same way for HTTP and a WebSocket."""
    http, websocket = ask(*headers), ask(*headers, kind="websocket")
    assert [message.get("status") for message in http] in ([], [403, None])
    assert [message["type"] for message in websocket] in ([], ["websocket.close"])
    assert bool(http) == bool(websocket)
    return bool(http)


@given(st.one_of(st.text("abl.:[]@/127?# -\n", max_size=20), st.sampled_from(sorted(OURS))), st.integers(0, 99_999))
def test_a_host_is_let_in_by_its_name_alone(name, port):
    """The name in Host is accepted with any port or none; other text in the header is refused."""
    assert refused(("host", name)) == (host_name(name) not in OURS)
    if name in OURS:
        assert not refused(("host", f"{name}:{port}"))
    assert refused(("host", f"{name}.evil.example"))
    assert refused(("host", f"{name}@evil.example"))


def test_an_answer_may_be_framed_by_its_own_pages_only():
    """The guard adds the header against foreign frames to those of the application."""
    messages: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})

    async def send(message):
        messages.append(message)

    scope = {"type": "http", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(app, OURS)(scope, send, send))
    assert messages[0]["headers"] == [(b"x", b"y"), (b"content-security-policy", b"frame-ancestors 'self'")]


def test_exactly_one_host_is_wanted():
    """A request with no Host, or with two, is refused."""
    assert refused()
    assert refused(("host", "localhost"), ("host", "localhost"))


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("localhost:8501", "http://localhost:8501", True),
        ("LOCALHOST:8501", "http://localhost:8501", True),
        ("localhost:8501", "http://localhost:3000", False),
        ("localhost:8501", "http://127.0.0.1:8501", False),
        ("localhost:8501", "null", False),
        ("localhost:8501", "", False),
        ("localhost:8501", "http://evil.example", False),
        ("lab.example.com", "https://lab.example.com", True),
        # Behind a proxy that keeps its own Host.
        ("127.0.0.1:8501", "https://lab.example.com", True),
        ("127.0.0.1:8501", "https://lab.example.com.evil.example", False),
    ],
)
def test_an_origin_is_the_services_own(host, origin, own):
    """Origin must equal Host, port included, or be a name in ALLOWED_HOSTS."""
    assert refused(("host", host), ("origin", origin)) == (not own)


def test_what_is_no_host_name_is_refused_with_a_remedy():
    """ALLOWED_HOSTS refuses schemes, ports, wildcards and inner blanks; case, outer blanks and empty parts are fine."""
    assert allowed_hosts("") == allowed_hosts(" , ") == LOOPBACK
    assert allowed_hosts(" Lab.Example.com, ,api,") == LOOPBACK | {"lab.example.com", "api"}
    for value in ("http://lab.example.com", "lab.example.com:80", "*", "*.example.com", "a b", "[::1"):
        with pytest.raises(LabError, match="not a host name") as error:
            allowed_hosts(f"api,{value}")
        assert "ALLOWED_HOSTS=" in error.value.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
def test_another_users_file_in_the_place_of_a_socket_is_named(tmp_path):
    """The error comes before the start and names the port to change; a file of the same user is no error."""
    values = settings.load({"S3_FILER_PORT": "53217"})
    path = "/tmp/seaweedfs-filer-grpc-63217.sock"  # noqa: S108
    with open(path, "x"):  # noqa: PTH123
        pass
    try:
        assert _said_as(65_534, values) == f"{path}, where S3 makes a socket, belongs to the user 0"
        os.chown(path, 65_534, -1)
        assert _said_as(65_534, values) == ""
    finally:
        os.unlink(path)  # noqa: PTH108


def _said_as(user: int, values: settings.Settings) -> str:
    """The message of the check in a child that acts as `user`."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.setuid(user)
        try:
            check_sockets(values)
        except LabError as error:
            os.write(writer, error.message.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()
