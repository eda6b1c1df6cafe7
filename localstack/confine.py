"""What MiniStack may do to this machine, whoever asks it: start no program, listen on one port, and ask the engine for
confined tasks only. MiniStack itself passes `privileged`, host folders and the host's network on to the engine.
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

# Python's own names for the ways to start a program. Lambda, Glue and CodeBuild take them.
PROGRAMS = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
MEMORY, PROCESSES = 2**30, 512
# What MiniStack's ECS asks of the engine, by method and path.
READS = r"/(_ping|version|info|containers/json|containers/[^/]+/(json|logs)|images/.+/json|distribution/.+/json)"
CHANGES = r"/containers/(?P<id>[\w.-]+)(/(start|stop|kill))?"


class DeniedError(PermissionError):
    """The stand-in asked for what it may not have; MiniStack makes it the reason why a task stopped."""


def process(host: str, port: int) -> None:
    """From now on this process starts no program and opens no port but `port`. It cannot be undone."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in PROGRAMS:
            raise DeniedError(f"the stand-in AWS starts no programs ({event})")
        if event == "socket.bind" and tuple(args[1][:2]) != (host, port):
            raise DeniedError(f"the stand-in AWS listens on its one port only, not on {args[1]!r}")

    sys.addaudithook(hook)


def engine(registry: str, key_id: str, secret: str) -> None:
    """Let every request to the engine pass `_Engine`; sign the engine in to `registry` (host:port) for its pulls."""
    try:
        import docker
    except ImportError:  # there is no engine to confine
        return
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    coded = base64.b64encode(f"{key_id}:{secret}".encode()).decode()
    # Docker's own way to keep a password; the folder is this user's alone.
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": coded}} if registry else {}}))
    os.environ["DOCKER_CONFIG"] = str(folder)
    plain = docker.APIClient.request

    def request(self: Any, method: str, url: str, **options: Any) -> Any:
        return _Engine(lambda *words, **more: plain(self, *words, **more), registry).request(method, url, options)

    docker.APIClient.request = request


class _Engine:
    """The engine's HTTP interface as far as ECS needs it."""

    def __init__(self, ask: Callable[..., Any], registry: str) -> None:
        self.ask, self.registry = ask, registry
        # As MiniStack computes it.
        name = os.environ.get("MINISTACK_HOSTNAME") or os.environ.get("HOSTNAME", "")
        self.mark = {"ministack": "ecs", "ministack.instance": f"{name}:{os.environ.get('GATEWAY_PORT', '4566')}"}

    def request(self, method: str, url: str, options: dict[str, Any]) -> Any:
        """Pass the request on if it is one of those, else raise DeniedError."""
        head, path = re.fullmatch(r"(https?\+?\w*://[^/]+(?:/v[\d.]+)?)(/[^?]*)", url).groups()  # type: ignore[union-attr]
        if method == "POST" and path == "/containers/create":
            options["data"] = json.dumps(confined(json.loads(options["data"]), self.mark, self._network(head)))
        elif method == "POST" and (path == "/images/create" or re.fullmatch(r"/images/.+/tag", path)):
            named = options.get("params") or {}
            self._own_image(named.get("fromImage") or named.get("repo") or "")
        elif method in ("POST", "DELETE") and (changed := re.fullmatch(CHANGES, path)):
            self._own_container(head, changed["id"])
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


def confined(asked: Mapping[str, Any], mark: Mapping[str, str], network: str) -> dict[str, Any]:
    """The container of a task: what was asked for, confined as every container of the lab is.

    Raise DeniedError for one that is no task, and for one that wants more of the machine than a published port.
    """
    labels, host = asked.get("Labels") or {}, dict(asked.get("HostConfig") or {})
    if {name: labels.get(name) for name in mark} != dict(mark):
        raise DeniedError("the stand-in AWS starts the tasks of ECS only")
    if host.pop("NetworkMode", None) != network:
        raise DeniedError("a task runs on the stand-in's own network: networkMode host is not to be had")
    ports = host.pop("PortBindings", None) or {}
    wanted = sorted(name for name, value in host.items() if value) + (["Volumes"] if asked.get("Volumes") else [])
    if wanted:
        raise DeniedError(
            f"a task may not have {', '.join(wanted)}: no privileges, host folders or the host's processes"
        )
    return {
        **{name: asked[name] for name in ("Image", "Cmd", "Env", "ExposedPorts") if asked.get(name)},
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": network,
            # MiniStack would publish on every address of the machine.
            "PortBindings": {
                port: [{**bound, "HostIp": "127.0.0.1"} for bound in places] for port, places in ports.items() if places
            },
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": MEMORY,
            "PidsLimit": PROCESSES,
            # The engine's own default keeps all that a task prints.
            "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }
