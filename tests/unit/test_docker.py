"""The choice of the engine, and the reasons why containers cannot run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from lab import settings
from lab.errors import LabError
from launcher import compose, docker, docker_preflight, engine, preflight, state
from launcher.console import Progress


@pytest.fixture
def fake_docker(tmp_path, monkeypatch):
    """Make a program `docker` from a shell script."""

    def make(script: str) -> None:
        path = tmp_path / "docker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
        monkeypatch.setattr(docker, "WAIT_SECONDS", 1)

    docker.fault.cache_clear()
    docker_preflight._info.cache_clear()
    monkeypatch.setattr(docker_preflight, "MADE_WITH", tmp_path / "images.json")
    monkeypatch.setattr(preflight, "STATE", tmp_path)
    monkeypatch.setattr(state, "MADE_BY", tmp_path / "engine")
    monkeypatch.setattr(state, "STATE", tmp_path)
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    yield make
    docker.fault.cache_clear()
    docker_preflight._info.cache_clear()


def script(compose: str = "2.26.1", server: str = "26.1", buildx: str = "0.13", info: str = "") -> str:
    """A docker with these versions; `info` is its description of itself."""
    return f"""case "$*" in
      "compose version --short") echo {compose};;
      "version "*) echo {server};;
      "buildx version") echo {buildx};;
      "info "*) {info or "echo"};;
    esac"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 1", "beside Docker"),
        (script(compose="1.29.2"), "Compose 1.29.2"),
        (script(compose="v2.20.3"), "Compose v2.20.3"),
        ('test "$1" = compose && echo 2.26.1 || { echo permission denied >&2; exit 1; }', "permission denied"),
        (script(server="24.0.7"), "engine is 24.0.7"),
        (f'test "$1" != buildx || exit 1\n{script()}', "no buildx"),
        ("sleep 60", "does not answer within 1 s"),
    ],
)
def test_an_engine_that_is_not_fit(fake_docker, text, message):
    """With an unfit engine `auto` runs processes, and ENGINE=docker is an error with a remedy."""
    fake_docker(text)
    assert message in docker.fault().message
    assert "ENGINE=embedded" in docker.fault().remedy
    assert engine.choose(settings.load({})).NAME == "embedded"
    with pytest.raises(LabError, match=message):
        engine.choose(settings.load({"ENGINE": "docker"}))


@pytest.mark.parametrize("version", ["2.24.4", "v2.40.0", "5.1.0", "2.27.0-desktop.2", "dev"])
def test_containers_where_they_can_run(fake_docker, version):
    """`auto` runs containers, unless the other engine made this lab's state; every command then uses that one."""
    fake_docker(script(compose=version))
    assert docker.fault() is None
    assert engine.choose(settings.load({})).NAME == "docker"
    state.note_engine("embedded")
    assert engine.choose(settings.load({})).NAME == "embedded"
    assert engine.present(settings.load({"ENGINE": "docker"})).NAME == "embedded"
    with pytest.raises(LabError, match="are in the embedded engine"):
        engine.choose(settings.load({"ENGINE": "docker"}))


def test_an_engine_that_does_not_exist(fake_docker):
    """The message names the engines."""
    with pytest.raises(LabError, match="auto, docker or embedded"):
        engine.choose(settings.load({"ENGINE": "podman"}))


def test_lite_is_one_or_nought(fake_docker):
    """The command line can reset LITE, and another value is an error."""
    settings.remember({"LITE": "1"})
    assert settings.load({}).lite
    assert not settings.load({"LITE": "0"}).lite
    settings.remember({"LITE": "0"})
    assert not settings.load({}).lite
    with pytest.raises(LabError, match="LITE is 'yes'"):
        settings.load({"LITE": "yes"})


@pytest.mark.parametrize(
    ("lite", "states", "needed", "way_out"),
    [
        ("0", {}, "6000", "LITE=1"),
        ("1", {}, "1500", "ENGINE=embedded"),
        ("0", {"api": "up"}, "4500", "LITE=1"),
        ("1", {"api": "exited 0", "s3": "created"}, "1500", "ENGINE=embedded"),
    ],
)
def test_too_little_memory(fake_docker, lite, states, needed, way_out):
    """The message has the memory that is needed in addition, and a smaller form of the lab."""
    fake_docker(script(info="echo 1000000000"))
    with pytest.raises(LabError, match=f"needs {needed} MB of memory; Docker may use 953 MB") as caught:
        docker_preflight.check(settings.load({"LITE": lite}), [], states)
    assert way_out in caught.value.remedy


def test_too_little_disk(fake_docker, monkeypatch):
    """The disk of Docker's images counts."""
    fake_docker(script(info='case "$*" in *Root*) echo /;; esac'))
    monkeypatch.setattr(docker_preflight, "DISK_MB", 10**9)
    monkeypatch.setattr(docker_preflight, "MEMORY_MB", 1)
    with pytest.raises(LabError, match="are free on the disk of /;"):
        docker_preflight.check(settings.load({"LITE": "1"}), [], {})


def test_whose_files_they_are(fake_docker):
    """The files belong to the clone's owner, who is root to a rootless engine."""
    fake_docker(script())
    assert docker_preflight.owner() == (settings.ROOT.stat().st_uid, settings.ROOT.stat().st_gid)
    fake_docker(script(info="echo [name=seccomp name=rootless]"))
    docker_preflight._info.cache_clear()
    assert docker_preflight.owner() == (0, 0)


def test_a_clone_that_others_cannot_read(tmp_path):
    """The error comes before the start, because the Elastic containers could not read their configuration."""
    folder = tmp_path / "services"
    folder.mkdir(mode=0o755)
    (folder / "x.yml").touch(mode=0o600)
    with pytest.raises(LabError, match=r"x\.yml can be read by its owner alone"):
        docker_preflight._check_readable(folder)


@pytest.mark.parametrize(
    ("limit", "host", "lite", "expectation"),
    [
        (10**9, "Debian", "0", True),
        (1, "Debian", "0", False),
        (10**9, "Docker Desktop", "0", False),
        (10**9, "", "1", False),
    ],
)
def test_few_memory_maps_are_a_note(fake_docker, tmp_path, monkeypatch, capsys, limit, host, lite, expectation):
    """The lab starts, because one node needs fewer maps, and a note has the command that raises the limit."""
    if not Path("/proc/sys/vm/max_map_count").exists():
        pytest.skip("not Linux")
    answers = """*"config --format json") echo '{"services": {}}';; "ps "*) ;;"""
    fake_docker(script(info=f"echo {host}").replace("esac", f"{answers} esac"))
    monkeypatch.setattr(docker_preflight, "MAP_COUNT", limit)
    for name in ("MEMORY_MB", "ELASTIC_MEMORY_MB", "DISK_MB", "ELASTIC_DISK_MB"):
        monkeypatch.setattr(docker_preflight, name, 1)
    monkeypatch.setattr(preflight, "check_ports", lambda *_: None)
    monkeypatch.setattr(compose, "ENV_FILE", tmp_path / "compose.env")
    monkeypatch.setattr(docker, "ROOT", tmp_path)
    monkeypatch.setattr(docker, "LOG", tmp_path / "log" / "compose.log")
    values = dict.fromkeys((row.name for row in settings.SETTINGS if row.secret), "x" * 40)
    docker.start(settings.load({**values, "LITE": lite}), Progress())
    out = capsys.readouterr().out
    assert "the services are up" in out
    assert ("note: vm.max_map_count is" in out) == ("sudo sysctl -w vm.max_map_count=" in out) == expectation


def test_the_memory_asked_for_is_three_quarters_of_elastics_limits():
    """The needed memory follows from the limits in compose.yaml, and README has the same figures."""
    limits = {True: 0.0, False: 0.0}
    for service in yaml.safe_load((settings.ROOT / "compose.yaml").read_text())["services"].values():
        if service["restart"] == "unless-stopped" and service.get("profiles", ["elastic"]) == ["elastic"]:
            number, unit = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([mg])\}?", service["mem_limit"]).groups()
            limits["profiles" in service] += int(number) * {"m": 1, "g": 1024}[unit]
    lite, elastic = docker_preflight.MEMORY_MB, docker_preflight.ELASTIC_MEMORY_MB
    assert elastic == pytest.approx(0.75 * limits[True], abs=50)
    assert lite < limits[False]
    readme = (settings.ROOT / "README.md").read_text()
    assert re.search(rf"make up LITE=1 .*; {lite / 1000:g} GB of memory", readme)
    assert re.search(rf"make up  .*; {(lite + elastic) / 1000:g} GB of memory", readme)
