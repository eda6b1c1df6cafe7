"""The health checks in compose.yaml of images that cannot be pulled here, run against a server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from lab.settings import ROOT

CHECKS = {"filebeat": ("5066", "/stats"), "apm-server": ("8200", "/"), "kibana": ("5601", "/api/status")}


def healthy(name: str, port: int) -> bool:
    """Run the service's check with its port moved to `port`."""
    kind, *words = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][name]["healthcheck"]["test"]
    assert kind == "CMD"
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed")
    moved = [word.replace("$$", "$").replace(CHECKS[name][0], str(port)) for word in words]
    assert moved != words
    return subprocess.run(moved, capture_output=True, timeout=10).returncode == 0


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("status", [200, 503])
def test_a_service_is_well_when_its_status_is_200(name, status):
    """A check succeeds when the service answers 200 at its address, whatever the body says."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # bash reads the first line and leaves
                self.wfile.write(b'{"status": {"overall": {"level": "degraded"}}}')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    assert healthy(name, server.server_port) is (status == 200)
    assert paths == [CHECKS[name][1]]
    server.server_close()


@pytest.mark.parametrize("name", CHECKS)
def test_a_service_that_does_not_listen_is_not_well(name):
    """A check fails when nothing listens, or when the connection is closed without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        assert not healthy(name, port)
    assert not healthy(name, port)


def test_filebeats_check_asks_where_it_answers():
    """Filebeat's check asks at the host and port of filebeat.yml."""
    config = yaml.safe_load((ROOT / "services" / "filebeat" / "filebeat.yml").read_text())
    assert config["http.enabled"] is True
    words = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["filebeat"]["healthcheck"]["test"]
    assert f"/dev/tcp/{config['http.host']}/{config['http.port']};" in words[-1]
