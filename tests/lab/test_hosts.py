"""Tests that the dashboard and MLflow answer only to their own host names and pages."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys

import msgspec
import pytest

from tests.conftest import Lab, free_port
from tests.lab.conftest import eventually
from tests.lab.page import Page, ask


def shakes_hands(port: str, **headers: str) -> bool:
    """Return whether the dashboard accepts a WebSocket connection with these headers."""
    request_headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with socket.create_connection(("127.0.0.1", int(port)), 30) as line:
        text = "".join(f"{name}: {value}\r\n" for name, value in {**request_headers, **headers}.items())
        line.sendall(f"GET /_stcore/stream HTTP/1.1\r\n{text}\r\n".encode())
        status = int(line.recv(100).split()[1])
    assert status in (101, 403)
    return status == 101


FOREIGN = ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1@evil.example", ""]
PATHS = {
    "DASHBOARD_PORT": ["/", "/_stcore/health", "/_stcore/host-config", "/_stcore/upload_file/x/y", "/media/x"],
    "MLFLOW_PORT": ["/", "/version", "/api/2.0/mlflow/experiments/search?max_results=1", "/graphql", "/static-files/x"],
}


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_foreign_host_is_refused(lab, name):
    """Every path refuses a foreign Host header with 403 and a remedy, and accepts loopback names with any port."""
    port = lab.env[name]
    for path in PATHS[name]:
        for host in FOREIGN:
            status, body = ask(port, "GET", path, Host=host.format(port=port))
            assert (status, b"ALLOWED_HOSTS" in body) == (403, True), (path, host)
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", f"[::1]:{port}", "localhost:9"):
            assert ask(port, "GET", path, Host=host)[0] != 403


def test_a_foreign_page_does_not_open_the_dashboards_websocket(lab):
    """Neither another origin, even on this machine, nor a rebound host name can open the dashboard's WebSocket."""
    port = lab.env["DASHBOARD_PORT"]
    own = f"127.0.0.1:{port}"
    assert shakes_hands(port, Host=own, Origin=f"http://{own}")
    assert shakes_hands(port, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")
    for origin in ("http://localhost:3000", "http://127.0.0.1:3000", "http://evil.example", "null"):
        assert not shakes_hands(port, Host=own, Origin=origin)
    rebound = f"evil.example:{port}"
    assert not shakes_hands(port, Host=rebound, Origin=f"http://{rebound}")


def test_a_foreign_origin_changes_nothing_in_mlflow(lab):
    """MLflow refuses every method from a foreign origin, including the preflight request, and creates nothing."""
    port, path = lab.env["MLFLOW_PORT"], "/api/2.0/mlflow/experiments/create"
    for origin in (
        "http://localhost:3000",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "http://evil.example",
        "null",
    ):
        for method in ("POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"):
            body = msgspec.json.encode({"name": f"{origin} {method}"}).decode()
            status, _ = ask(port, method, path, body, Origin=origin, Content_Type="application/json")
            assert status == 403
    assert not [name for name in _experiments(lab) if "://" in name]


def test_allowed_hosts_are_a_setting(lab, tmp_path):
    """The server accepts requests and pages of a name in ALLOWED_HOSTS, and `make up` refuses an invalid name."""
    port = str(free_port(set()))
    environment = {**lab.env, "ALLOWED_HOSTS": "other,lab.example.com", "API_URL": lab.url("API_PORT")}
    command = [sys.executable, "dashboard/serve.py", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=lab.root, env={**environment, "PYTHONPATH": str(lab.root)}, stdout=log, stderr=log
        )
    try:
        assert eventually(lambda: _answers(port)), (tmp_path / "log").read_text()
        assert ask(port, "GET", "/", Host="lab.example.com")[0] == 200
        assert shakes_hands(port, Host="lab.example.com", Origin="https://lab.example.com")
        assert ask(port, "GET", "/", Host="www.example.com")[0] == 403
    finally:
        server.kill()
        server.wait()
    before = (lab.root / ".env").read_text()
    process = lab.run(sys.executable, "-m", "launcher", "up", ALLOWED_HOSTS="https://lab.example.com")
    assert process.returncode == 1
    assert "'https://lab.example.com', which is not a host name" in process.stderr
    assert (lab.root / ".env").read_text() == before


def _answers(port: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, "GET", "/_stcore/health")[0] == 200
    return False


CREATE = """
const [url, who] = arguments, answers = [];
for (const type of ["application/json", "text/plain"]) for (const mode of ["cors", "no-cors"]) {
  try {
    const body = JSON.stringify({name: `by ${who}: ${type}, ${mode}`});
    const answer = await fetch(url, {method: "POST", mode, body, headers: {"Content-Type": type}});
    answers.push(`${answer.type} ${answer.status}`);
  } catch {}
}
try { answers.push(`read ${(await fetch(url.replace("create", "search?max_results=9"))).status}`); } catch {}
return answers;
"""


def test_a_page_cannot_use_mlflow(lab, page):
    """Another program's page can neither create nor read an experiment, while MLflow's own page can do both."""
    path, driver = "/api/2.0/mlflow/experiments/create", page.driver
    for name in ("127.0.0.1", "localhost"):
        address = f"http://{name}:{lab.env['MLFLOW_PORT']}"
        # Of an opaque answer a page knows nothing, not even the status.
        assert set(page.run(CREATE, address + path, "a page")) <= {"opaque 0"}
        driver.get(address)
        assert eventually(lambda: "Experiments" in driver.execute_script("return document.body.innerText"))
        assert {"basic 200", "read 200"} <= set(Page(address, driver).run(CREATE, path, name))
    names = _experiments(lab)
    assert {"by 127.0.0.1: application/json, cors", "by localhost: application/json, cors"} <= set(names)
    assert not [name for name in names if "by a page" in name]


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_page_cannot_show_them_in_a_frame(lab, page, name):
    """Another program's page cannot show the service in a frame to hijack clicks, but the service's own page can."""
    address, driver = lab.url(name), page.driver
    frame = "const frame = document.createElement('iframe'); frame.src = arguments[0]; document.body.append(frame);"
    for place, allowed_here in ((page.url, False), (address, True)):
        driver.get(place)
        driver.execute_script(f"document.body.replaceChildren(); {frame}", address)
        driver.switch_to.frame(0)
        expectation = address if allowed_here else "chrome-error:"
        assert eventually(lambda url=expectation: driver.execute_script("return document.documentURI").startswith(url))
        driver.switch_to.default_content()


def _experiments(lab: Lab) -> list[str]:
    status, body = ask(lab.env["MLFLOW_PORT"], "GET", "/api/2.0/mlflow/experiments/search?max_results=1000")
    assert status == 200
    return [each["name"] for each in msgspec.json.decode(body)["experiments"]]
