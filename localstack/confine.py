"""Limit what MiniStack can do to this machine, also on behalf of a user who has the key.

With these limits MiniStack starts no program, listens on one port, and lets the engine run only confined tasks. Without
them it would pass `privileged`, host folders and the host's network on to the engine.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Python's audit events for the start of a program. Lambda, Glue and CodeBuild would start programs.
PROGRAMS = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
MEMORY, PROCESSES = 2**30, 512
# Paths of the engine's API that MiniStack's ECS uses: those that read, and those that change.
READS = r"/(_ping|version|info|containers/json|containers/[^/]+/(json|logs)|images/.+/json|distribution/.+/json)"
CHANGES = r"/containers/(?P<id>[\w.-]+)(/(start|stop|kill))?"


class DeniedError(PermissionError):
    """A request of MiniStack that is not allowed. MiniStack reports the message as the reason why a task stopped."""


def process(host: str, port: int) -> None:
    """Forbid this process to start programs and to listen on any other port. This cannot be undone."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in PROGRAMS:
            raise DeniedError(f"the stand-in AWS starts no programs ({event})")
        if event == "socket.bind" and tuple(args[1][:2]) != (host, port):
            raise DeniedError(f"the stand-in AWS listens on its own port only, not on {args[1]!r}")

    sys.addaudithook(hook)


def engine(registry: str, key_id: str, secret: str) -> None:
    """Check every request to the engine with `_Engine`, and sign in to `registry` (host:port) for its pulls."""
    try:
        import docker
    except ImportError:  # without the SDK MiniStack cannot use an engine
        return
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    coded = base64.b64encode(f"{key_id}:{secret}".encode()).decode()
    # Docker's usual file for passwords; only this user may read the folder that mkdtemp makes.
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": coded}} if registry else {}}))
    os.environ["DOCKER_CONFIG"] = str(folder)
    plain = docker.APIClient.request

    def request(self: Any, method: str, url: str, **options: Any) -> Any:
        return _Engine(lambda *words, **more: plain(self, *words, **more), registry).request(method, url, options)

    docker.APIClient.request = request


class _Engine:
    """The part of the engine's HTTP API that ECS needs."""

    def __init__(self, ask: Callable[..., Any], registry: str) -> None:
        self.ask, self.registry = ask, registry
        # MiniStack gives its containers the same labels.
        name = os.environ.get("MINISTACK_HOSTNAME") or os.environ.get("HOSTNAME", "")
        self.mark = {"ministack": "ecs", "ministack.instance": f"{name}:{os.environ.get('GATEWAY_PORT', '4566')}"}

    def request(self, method: str, url: str, options: dict[str, Any]) -> Any:
        """Pass an allowed request on to the engine; raise DeniedError for any other."""
        head, path = re.fullmatch(r"(https?\+?\w*://[^/]+(?:/v[\d.]+)?)(/[^?]*)", url).groups()  # type: ignore[union-attr]
        if method == "POST" and path == "/containers/create":
            options["data"] = json.dumps(confined(json.loads(options["data"]), self.mark, self._network(head)))
        elif method == "POST" and (path == "/images/create" or re.fullmatch(r"/images/.+/tag", path)):
            parameters = options.get("params") or {}
            self._own_image(parameters.get("fromImage") or parameters.get("repo") or "")
        elif method in ("POST", "DELETE") and (match := re.fullmatch(CHANGES, path)):
            self._own_container(head, match["id"])
        elif method != "GET" or not re.fullmatch(READS, path):
            raise DeniedError(f"the stand-in AWS may not ask the engine for {method} {path}")
        elif image := re.fullmatch("/distribution/(.+)/json", path):
            self._own_image(image[1])
        return self.ask(method, url, **options)

    def _inspect(self, head: str, name: str) -> Any:
        return self.ask("GET", f"{head}/containers/{name}/json", timeout=10)

    def _network(self, head: str) -> str:
        """The one network of the stand-in's own container."""
        answer = self._inspect(head, os.environ.get("HOSTNAME", ""))
        networks = list(answer.json()["NetworkSettings"]["Networks"]) if answer.status_code == 200 else []
        if len(networks) != 1:
            raise DeniedError(f"the stand-in AWS must be a container on one network of its own; it is on {networks}")
        return str(networks[0])

    def _own_image(self, name: str) -> None:
        if not self.registry or not name.startswith(f"{self.registry}/"):
            raise DeniedError(f"the stand-in AWS pulls from its own registry only ({self.registry}), not {name}")

    def _own_container(self, head: str, name: str) -> None:
        answer = self._inspect(head, name)
        if answer.status_code == 200:
            labels = answer.json()["Config"].get("Labels") or {}
            if labels.get("ministack.instance") != self.mark["ministack.instance"]:
                raise DeniedError(f"the container {name} is not the stand-in's")


def confined(body: Mapping[str, Any], mark: Mapping[str, str], network: str) -> dict[str, Any]:
    """The request for a task's container, changed so that it is confined like every container of the lab.

    Raises DeniedError for a container that is not a task, and for one that needs more of the machine than published
    ports.
    """
    labels, host = body.get("Labels") or {}, dict(body.get("HostConfig") or {})
    if {name: labels.get(name) for name in mark} != dict(mark):
        raise DeniedError("the stand-in AWS starts the tasks of ECS only")
    if host.pop("NetworkMode", None) != network:
        raise DeniedError("a task runs on the stand-in's own network: networkMode host is not allowed")
    ports = host.pop("PortBindings", None) or {}
    refusals = sorted(name for name, value in host.items() if value) + (["Volumes"] if body.get("Volumes") else [])
    if refusals:
        raise DeniedError(
            f"a task may not have {', '.join(refusals)}: no privileges, host folders or the host's processes"
        )
    return {
        **{name: body[name] for name in ("Image", "Cmd", "Env", "ExposedPorts") if body.get(name)},
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": network,
            # MiniStack would publish the port on every address of the machine.
            "PortBindings": {
                port: [{**bound, "HostIp": "127.0.0.1"} for bound in places] for port, places in ports.items() if places
            },
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": MEMORY,
            "PidsLimit": PROCESSES,
            # By default the engine keeps the whole output of a task, without a limit.
            "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }
