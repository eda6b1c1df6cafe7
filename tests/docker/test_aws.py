"""The stand-in AWS on a real engine: a registry that takes a push, tasks that are containers, state that stays."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lab import http
from lab.errors import LabError

ROOT = Path(__file__).parents[2]
SOCKET = Path("/var/run/docker.sock")
BASE = "python:3.13-slim"


def docker(*words: str, seconds: float = 60, check: bool = True) -> str:
    """What docker says, within a time."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true answer; a service that is not there yet raises LabError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := true():
                return answer
        except LabError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def missing() -> str:
    try:
        docker("version", seconds=10)
        docker("image", "inspect", BASE, seconds=10)
    except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
        return f"no container engine with {BASE}: {str(error)[:200]}"
    return "" if SOCKET.is_socket() else f"{SOCKET} is no socket"


@dataclass(frozen=True)
class Aws:
    """The stand-in's container, which is also the name of its network, its volume and its image."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        limits = Config(connect_timeout=3, read_timeout=20, retries={"total_max_attempts": 2})
        return boto3.client(service, endpoint_url=self.url, config=limits, **keys)

    def wait(self) -> None:
        until(lambda: http.request("GET", f"{self.url}/_ministack/health", timeout=2), "the stand-in answers")

    def tasks(self) -> list[str]:
        """The containers of its tasks, by id."""
        label = f"label=ministack.instance={self.name}:4566"
        return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    if reason := missing():
        pytest.skip(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = Aws(f"lab-aws-test-{secrets.token_hex(4)}", probe.getsockname()[1])
    group = os.environ.get("DOCKER_GID") or str(SOCKET.stat().st_gid)
    try:
        docker("build", "--file", "localstack/Dockerfile", "--tag", here.name, ".", seconds=900)
        docker("network", "create", here.name)
        docker("volume", "create", here.name)
        docker(
            *("run", "--detach", "--name", here.name, "--network", here.name),
            *("--publish", f"127.0.0.1:{here.port}:4566"),
            *("--volume", f"{here.name}:/data", "--volume", f"{SOCKET}:{SOCKET}", "--group-add", group),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),  # noqa: S108
            *("--env", f"MINISTACK_HOSTNAME={here.name}", "--env", "MINISTACK_HOST=127.0.0.1", here.name),
        )
        here.wait()
        yield here
    finally:
        print(docker("logs", "--tail", "40", here.name, check=False))
        docker("rm", "--force", "--volumes", here.name, *here.tasks(), check=False)
        docker("network", "rm", here.name, check=False)
        docker("volume", "rm", here.name, check=False)
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        ours = [name for name in images if name.startswith((f"{here.name}:", f"127.0.0.1:{here.port}/"))]
        docker("rmi", "--force", *ours, check=False)


@pytest.fixture(scope="module")
def image(aws: Aws) -> str:
    """An image in the stand-in's registry, and nowhere else under that name."""
    aws.client("ecr").create_repository(repositoryName="sleeper")
    name = f"127.0.0.1:{aws.port}/sleeper:1"
    docker("tag", BASE, name)
    docker("push", name, seconds=300)
    docker("rmi", name)
    return name


@pytest.fixture(scope="module")
def task(aws: Aws, image: str) -> str:
    """The ARN of a task that runs."""
    ecs = aws.client("ecs")
    ecs.create_cluster(clusterName="lab")
    ecs.register_task_definition(
        family="sleeper",
        networkMode="awsvpc",
        containerDefinitions=[
            {"name": "sleeper", "image": image, "command": ["python3", "-c", "import time; time.sleep(900)"]}
        ],
    )
    arn: str = ecs.run_task(cluster="lab", taskDefinition="sleeper")["tasks"][0]["taskArn"]

    def runs() -> bool:
        found = ecs.describe_tasks(cluster="lab", tasks=[arn])["tasks"][0]
        assert found["lastStatus"] != "STOPPED", found.get("stoppedReason")
        return bool(found["lastStatus"] == "RUNNING")

    until(runs, "the task runs", 120)
    return arn


def test_the_registry_holds_what_was_pushed(aws, image):
    """Under its tag, as ECR lists it."""
    (found,) = aws.client("ecr").list_images(repositoryName="sleeper")["imageIds"]
    assert found["imageTag"] == "1"


def test_a_repository_must_exist(aws):
    """As on AWS: a push does not make one."""
    name = f"127.0.0.1:{aws.port}/unknown:1"
    docker("tag", BASE, name)
    done = subprocess.run(["docker", "push", name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0


def test_a_task_is_a_container_on_the_network(aws, task):
    """Pulled from the registry, on the stand-in's own network."""
    (container,) = aws.tasks()
    assert docker("inspect", "--format", "{{.State.Status}}", container) == "running"
    label = '{{index .Config.Labels "com.amazonaws.ecs.task-arn"}}'
    assert docker("inspect", "--format", label, container) == task
    networks = docker(
        "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", container
    )
    assert networks.split() == [aws.name]


def test_a_stopped_task_is_gone(aws, task):
    """Its container is removed."""
    aws.client("ecs").stop_task(cluster="lab", task=task)
    until(lambda: not aws.tasks(), "the container is removed", 90)


def test_state_outlives_a_graceful_stop(aws, image):
    """Repository, image and task definition are there again, and the image can be pulled."""
    aws.client("s3").create_bucket(Bucket="kept")
    docker("stop", "--time", "60", aws.name, seconds=90)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", aws.name) == "0"
    docker("start", aws.name)
    aws.wait()
    repositories = aws.client("ecr").describe_repositories()["repositories"]
    assert [r["repositoryName"] for r in repositories] == ["sleeper"]
    docker("pull", image, seconds=120)
    assert aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
    assert [b["Name"] for b in aws.client("s3").list_buckets()["Buckets"]] == ["kept"]
