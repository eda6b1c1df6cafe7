"""Helpers that start the AWS stand-in as a separate process, as supervisord starts it."""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lab import http as client
from lab.settings import ROOT
from tests.conftest import free_port
from tests.lab.conftest import eventually


@dataclass(frozen=True)
class Emulator:
    """The port of an AWS stand-in and root's key, which is drawn at random as `make up` draws it."""

    port: int
    key_id: str = field(default_factory=lambda: secrets.token_hex(20))
    secret: str = field(default_factory=lambda: secrets.token_hex(20))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str, key_id: str = "", secret: str = "", token: str | None = None, **more: Any) -> Any:
        """Return a boto3 client with root's key, unless another key is given."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key_id or self.key_id,
            aws_secret_access_key=secret or self.secret,
            aws_session_token=token,
            config=Config(connect_timeout=3, read_timeout=20, retries={"total_max_attempts": 1}, **more),
        )

    def healthy(self) -> bool:
        with contextlib.suppress(client.UnreachableError):
            client.request("GET", f"{self.url}/_ministack/health", timeout=2)
            return True
        return False


def environment(emulator: Emulator, folder: Path) -> dict[str, str]:
    """Return the environment that supervisord sets for the AWS stand-in."""
    return {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": emulator.key_id,
        "AWS_SECRET_ACCESS_KEY": emulator.secret,
        "GATEWAY_PORT": str(emulator.port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": f"unix://{folder}/no-engine.sock",
        "TMPDIR": str(folder),
    }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Emulator]:
    emulator = Emulator(free_port(set()))
    with (folder / "aws.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "localstack"], cwd=ROOT, env=environment(emulator, folder), stdout=log, stderr=log
        )
        try:
            assert eventually(emulator.healthy), (folder / "aws.log").read_text()[-3000:]
            yield emulator
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def serving(content: bytes, kind: str = "text/plain") -> Iterator[tuple[int, list[str]]]:
    """Run a server that answers every request with `content`, and give its port and the requested paths."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, requests
        server.shutdown()


def balance(emulator: Emulator, port: int) -> str:
    """Create a load balancer called `front` for that port, and return its host name."""
    elb = emulator.client("elbv2")
    balancer = elb.create_load_balancer(Name="front", Subnets=["subnet-1"])["LoadBalancers"][0]
    group = elb.create_target_group(Name="g", Protocol="HTTP", Port=port, TargetType="ip", VpcId="vpc-00000001")
    arn = group["TargetGroups"][0]["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": "127.0.0.1", "Port": port}])
    actions = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=actions)
    return str(balancer["DNSName"])
