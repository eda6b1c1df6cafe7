"""Which engine is chosen, and what keeps containers from running."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from lab import container_preflight, containers, engine, settings
from lab.errors import LabError


@pytest.fixture
def fake_docker(tmp_path, monkeypatch):
    """Make a `docker` that behaves as the shell script given."""

    def make(script: str) -> None:
        path = tmp_path / "docker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
        monkeypatch.setattr(containers, "WAIT_SECONDS", 1)

    containers.fault.cache_clear()
    monkeypatch.setattr(engine, "MADE_BY", tmp_path / "engine")
    monkeypatch.setattr(engine, "STATE", tmp_path)
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    yield make
    containers.fault.cache_clear()


GOOD = 'case "$*" in "compose version --short") echo v2.26.1;; version*) echo 26.1;; esac'


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "beside Docker"),
        ('test "$1" = compose && echo 1.29.2', "only Compose v1"),
        ('test "$1" = compose && echo 2.26.1', "does not answer"),
        ("sleep 60", "does not answer"),
    ],
)
def test_an_engine_that_is_not_fit(fake_docker, script, said):
    """`auto` runs processes then; who asks for containers is told why not, and what to do."""
    fake_docker(script)
    assert said in containers.fault().message
    assert "ENGINE=embedded" in containers.fault().remedy
    assert engine.choose(settings.load({})).NAME == "embedded"
    with pytest.raises(LabError, match=said):
        engine.choose(settings.load({"ENGINE": "docker"}))


def test_containers_where_they_can_run(fake_docker):
    """`auto` takes them, unless this lab's state was made by the other engine."""
    fake_docker(GOOD)
    assert containers.fault() is None
    assert engine.choose(settings.load({})).NAME == "docker"
    engine.MADE_BY.write_text("embedded")
    assert engine.choose(settings.load({})).NAME == "embedded"
    with pytest.raises(LabError, match="kept by the embedded engine"):
        engine.remember(engine.choose(settings.load({"ENGINE": "docker"})))


def test_an_engine_that_does_not_exist(fake_docker):
    """It says which there are."""
    with pytest.raises(LabError, match="auto, embedded or docker"):
        engine.choose(settings.load({"ENGINE": "podman"}))


@pytest.mark.parametrize(("lite", "needed", "way_out"), [("", "6000", "LITE=1"), ("1", "1500", "ENGINE=embedded")])
def test_too_little_memory(fake_docker, monkeypatch, lite, needed, way_out):
    """What the whole needs, or without the Elastic part, and the next smaller form of the lab."""
    fake_docker("echo 1000000000")
    values = settings.load({"LITE": lite})
    with pytest.raises(LabError, match=f"needs {needed} MB of memory; Docker may use 953 MB") as caught:
        container_preflight.check(values, [], {})
    assert way_out in caught.value.remedy
    assert psutil.virtual_memory().available


def test_too_little_disk(fake_docker, monkeypatch):
    """Where Docker keeps its images."""
    fake_docker('case "$*" in *MemTotal*) echo 64000000000;; *) echo /;; esac')
    monkeypatch.setattr(container_preflight, "LITE_DISK_MB", 10**9)
    monkeypatch.setattr(container_preflight, "LITE_MEMORY_MB", 1)
    with pytest.raises(LabError, match="are free on the disk of /;"):
        container_preflight.check(settings.load({"LITE": "1"}), [], {})


def test_elasticsearch_needs_many_maps(monkeypatch):
    """The kernel's limit is named, with the command that raises it."""
    monkeypatch.setattr(container_preflight, "MAP_COUNT", 10**9)
    if not Path("/proc/sys/vm/max_map_count").exists():
        pytest.skip("not Linux")
    with pytest.raises(LabError, match=r"vm\.max_map_count is \d+") as caught:
        container_preflight._check_map_count()
    assert "sudo sysctl -w vm.max_map_count=" in caught.value.remedy
    assert "LITE=1" in caught.value.remedy
