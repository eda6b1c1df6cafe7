"""Tests that `make up` reports a fault once, with a remedy, before it starts any container."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.conftest import Lab
from tests.docker.conftest import in_containers


@pytest.fixture
def clone(tmp_path):
    """Make a clone whose lab was never up, under a Compose project of its own."""
    instance = in_containers(tmp_path, COMPOSE_PROJECT_NAME="lab-test-bad")
    yield instance
    instance.run("docker", "compose", "down", "--volumes", seconds=120)


def refused(clone, **env: str) -> str:
    process = clone.run(sys.executable, "-m", "launcher", "up", seconds=300, **env)
    assert process.returncode != 0, process.stdout
    assert process.stderr.startswith("error: "), process.stderr
    assert "What to do: " in process.stderr, process.stderr
    assert "Traceback" not in process.stderr
    remainder = clone.run("docker", "compose", "ps", "--all", "--quiet", **env)
    assert remainder.stdout == "", "nothing is half up"
    return process.stderr


def test_a_port_in_use(clone):
    """The error about a port in use names the setting and the command that sets another port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        output = refused(clone, DASHBOARD_PORT=str(port))
    assert f"port {port} (DASHBOARD_PORT) is in use" in output
    assert "make up DASHBOARD_PORT=" in output


def test_an_image_that_cannot_be_pulled(clone):
    """The error about an image that cannot be pulled names the image and the setting."""
    output = refused(
        clone, S3_IMAGE="127.0.0.1:9/no/such:1", COMPOSE_FILE="compose.yaml", POSTGRES_IMAGE="debian:trixie-slim"
    )
    assert "127.0.0.1:9/no/such:1" in output
    assert "S3_IMAGE" in output
    assert not (clone.root / ".lab" / "engine").exists(), "the other engine can still be chosen"


def test_a_secret_that_is_not_set(clone):
    """Compose, when it is run by hand without a secret, says that `make up` creates the secret."""
    words = ("docker", "compose", "--env-file", ".env.example", "config", "--quiet")
    process = clone.run(*words, MODEL_NAME="any")
    assert process.returncode != 0
    assert "run make up, which draws it" in process.stderr


def test_a_volume_of_another_version(clone):
    """`make up` refuses a volume of another major version before PostgreSQL starts, which cannot read it."""
    (clone.root / ".lab").mkdir()
    (clone.root / ".lab" / "images.json").write_text('{"POSTGRES_IMAGE": "postgres:16.2"}')
    output = refused(clone)
    for words in ("made with postgres:16.2", "POSTGRES_IMAGE=postgres:16.2", "make reset"):
        assert words in output


def test_the_other_engines_state(clone):
    """`make up` refuses another engine than the one that has the lab's models, and the refusal changes nothing."""
    (clone.root / ".lab").mkdir()
    (clone.root / ".lab" / "engine").write_text("embedded")
    assert "make up ENGINE=embedded" in refused(clone)
    assert not (clone.root / ".env").exists()


def test_a_fault_in_params_does_not_keep_it_from_stopping(clone):
    """`make down` and `make status` work when params.yaml is invalid."""
    (clone.root / ".lab").mkdir()
    (clone.root / ".lab" / "engine").write_text("docker")
    clone.run(sys.executable, "-c", "from lab import settings as s; s.remember(s.draw(s.load()))")
    (clone.root / "params.yaml").write_text("name: [")
    assert "nothing was running" in clone.python("-m", "launcher", "down")
    assert "down" in clone.run(sys.executable, "-m", "launcher", "status").stdout


@pytest.mark.parametrize("line", ["API_WORKERS=abc", "START_SECONDS=soon", "EVENTS_MB=-1"])
def test_a_fault_in_env_does_not_keep_it_from_stopping(clone, line):
    """With an invalid line in `.env`, `make down` works, and `make up` names the setting."""
    (clone.root / ".lab").mkdir()
    (clone.root / ".lab" / "engine").write_text("docker")
    clone.run(sys.executable, "-c", "from lab import settings as s; s.remember(s.draw(s.load()))")
    with (clone.root / ".env").open("a") as file:
        file.write(f"{line}\n")
    values = {name: value for name, value in clone.env.items() if name != line.partition("=")[0]}
    edited = Lab(clone.root, values)
    assert "nothing was running" in edited.python("-m", "launcher", "down")
    assert line.partition("=")[0] in edited.run(sys.executable, "-m", "launcher", "up").stderr
