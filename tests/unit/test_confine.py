"""The stand-in AWS can do little to this machine, also for the holder of its key."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.settings import ROOT
from localstack import confine
from tests.emulator import Emulator, environment

MARK = {"ministack": "ecs", "ministack.instance": "a:4566"}
PLAIN = {"Image": "i", "Cmd": ["c"], "Env": ["A=b"], "Labels": MARK, "HostConfig": {"NetworkMode": "own"}}
VALUES = st.one_of(st.booleans(), st.integers(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))


def test_a_confined_process_starts_nothing_and_opens_no_other_port(tmp_path):
    """The process cannot start a program or open a port in any way that Python has."""
    script = """
import os, socket, subprocess
from localstack import confine
confine.process("127.0.0.1", 1)
ways = [lambda: subprocess.run(["touch", "x"]), lambda: os.system("touch x"), os.fork,
        lambda: os.execv("/bin/sh", ["sh"]),
        lambda: os.posix_spawn("/bin/sh", ["sh"], {}), lambda: os.popen("touch x"), os.forkpty,
        lambda: os.spawnv(os.P_WAIT, "/bin/sh", ["sh"]), lambda: socket.socket().bind(("127.0.0.1", 0))]
for number, way in enumerate(ways):
    try:
        way()
    except PermissionError:
        continue
    raise SystemExit(f"{number} was not refused")
"""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_it_drops_what_it_need_not_know(tmp_path):
    """The variables of the shell and of the lab are removed before the first request, and policies are evaluated."""
    script = """
import os, localstack.__main__
from ministack import app
app.main = lambda: print(dict(os.environ))
localstack.__main__.main()
"""
    here = Emulator(1)
    known = {**environment(here, tmp_path), "AUTH": "false", "SERVICES": ""}
    secrets = dict.fromkeys(("S3_SECRET_KEY", "API_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "HTTP_PROXY"), "x")
    command = [sys.executable, "-c", script]
    process = subprocess.run(
        command, cwd=ROOT, env=known | secrets, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    names = ast.literal_eval(process.stdout)
    assert names.keys() & secrets.keys() == set()
    assert (names["AUTH"], names["AWS_ACCESS_KEY_ID"]) == ("true", here.key_id)
    assert "lambda" not in names["SERVICES"].split(",")


@given(st.dictionaries(st.text(), VALUES), st.dictionaries(st.text(), VALUES))
def test_a_task_gets_only_what_a_task_may_have(more, host):
    """Other options of a container are refused, or not passed on."""
    request = {**more, **PLAIN, "HostConfig": {**host, "NetworkMode": "own"}}
    if any(value for name, value in host.items() if name not in ("NetworkMode", "PortBindings")) or more.get("Volumes"):
        with pytest.raises(confine.DeniedError):
            confine.confined(request, MARK, "own")
        return
    body = confine.confined(request, MARK, "own")
    assert body.keys() <= {"Image", "Cmd", "Env", "ExposedPorts", "Labels", "HostConfig"}
    fixed = {"NetworkMode", "PortBindings", "CapDrop", "SecurityOpt", "Memory", "PidsLimit", "LogConfig"}
    assert body["HostConfig"].keys() == fixed


def test_a_task_is_held_to_what_compose_holds_the_lab_to():
    """A task has the capabilities, privileges and log sizes of every service."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["x-service"]
    host = confine.confined(PLAIN, MARK, "own")["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"]) == (service["cap_drop"], service["security_opt"])
    assert host["LogConfig"] == {"Type": service["logging"]["driver"], "Config": service["logging"]["options"]}


@pytest.mark.parametrize(
    "change",
    [
        *({"HostConfig": {"NetworkMode": mode}} for mode in ("host", "other", "container:x", "default", None)),
        *({"HostConfig": {"NetworkMode": "own", name: True}} for name in ("Privileged", "PublishAllPorts")),
        *(
            {"HostConfig": {"NetworkMode": "own", name: ["/:/host"]}}
            for name in ("Binds", "CapAdd", "Devices", "ExtraHosts")
        ),
        *({"HostConfig": {"NetworkMode": "own", name: "host"}} for name in ("PidMode", "IpcMode", "UsernsMode")),
        *(
            {"Labels": labels}
            for labels in ({}, {**MARK, "ministack": "rds"}, {**MARK, "ministack.instance": "b:4566"})
        ),
        {"Volumes": {"/x": {}}},
    ],
    ids=str,
)
def test_a_task_that_wants_the_machine_is_refused(change):
    """Privileges, host folders and host networks are refused, and so is a container that is not a task."""
    assert confine.confined(PLAIN, MARK, "own")
    with pytest.raises(confine.DeniedError):
        confine.confined({**PLAIN, **change}, MARK, "own")


def test_a_published_port_is_this_machines_alone():
    """A port is published on 127.0.0.1, although MiniStack names no address."""
    bound = {"NetworkMode": "own", "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}
    body = confine.confined({**PLAIN, "HostConfig": bound}, MARK, "own")
    assert body["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
