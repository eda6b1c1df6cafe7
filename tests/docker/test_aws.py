"""Tests of the AWS stand-in on a real engine: a registry with a password, confined tasks and persistent state."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from lab import http
from lab.errors import LabError
from tests.emulator import Emulator

ROOT = Path(__file__).parents[2]
SOCKET = Path("/var/run/docker.sock")
BASE = "python:3.13-slim"


def docker(*words: str, seconds: float = 60, check: bool = True, **env: str) -> str:
    """Run docker with a time limit, and return its output."""
    process = run("docker", *words, seconds=seconds, **env)
    assert not check or process.returncode == 0, f"docker {' '.join(words)}: {process.stderr}"
    return process.stdout.strip()


def run(*words: str, seconds: float = 60, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env={**os.environ, **env}
    )


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Poll until an answer is true, and return it; a LabError means that the service is not there yet."""
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
class Aws(Emulator):
    """The stand-in's container; its network, its volume and its image have the same `name`."""

    name: str = ""

    def wait(self) -> None:
        until(lambda: http.request("GET", f"{self.url}/_ministack/health", timeout=2), "the stand-in answers")

    def tasks(self) -> list[str]:
        """Return the ids of the containers of the stand-in's tasks."""
        label = f"label=ministack.instance={self.name}:4566"
        return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()

    def ended(self, **definition: Any) -> str:
        """Run a task with this definition, and return the reason why it stopped."""
        ecs = self.client("ecs")
        ecs.create_cluster(clusterName="lab")
        family = f"task-{secrets.token_hex(4)}"
        ecs.register_task_definition(family=family, **{"networkMode": "awsvpc", **definition})
        arn = ecs.run_task(cluster="lab", taskDefinition=family)["tasks"][0]["taskArn"]

        def stopped() -> Any:
            (description,) = ecs.describe_tasks(cluster="lab", tasks=[arn])["tasks"]
            return description["lastStatus"] in ("STOPPED", "RUNNING") and description

        task = until(stopped, f"{family} stops")
        if task["lastStatus"] == "RUNNING":
            ecs.stop_task(cluster="lab", task=arn)
        assert task["lastStatus"] == "STOPPED"
        return str(task["stoppedReason"])


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    if reason := missing():
        pytest.skip(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = Aws(probe.getsockname()[1], name=f"lab-aws-test-{secrets.token_hex(4)}")
    group = os.environ.get("DOCKER_GID") or str(SOCKET.stat().st_gid)
    known = {
        "MINISTACK_HOSTNAME": here.name,
        "MINISTACK_HOST": "127.0.0.1",
        "REGISTRY": f"127.0.0.1:{here.port}",
        "AWS_ACCESS_KEY_ID": here.key_id,
        "AWS_SECRET_ACCESS_KEY": here.secret,
    }
    try:
        docker("build", "--file", "localstack/Dockerfile", "--tag", here.name, ".", seconds=900)
        docker("network", "create", here.name)
        docker("volume", "create", here.name)
        docker(
            *("run", "--detach", "--name", here.name, "--network", here.name),
            *("--publish", f"127.0.0.1:{here.port}:4566"),
            *("--volume", f"{here.name}:/data", "--volume", f"{SOCKET}:{SOCKET}", "--group-add", group),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),  # noqa: S108
            *(word for pair in known.items() for word in ("--env", "=".join(pair))),
            here.name,
        )
        here.wait()
        yield here
    finally:
        print(docker("logs", "--tail", "60", here.name, check=False))
        docker("rm", "--force", "--volumes", here.name, *here.tasks(), check=False)
        docker("network", "rm", here.name, check=False)
        docker("volume", "rm", here.name, check=False)
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        ours = [name for name in images if name.startswith((f"{here.name}:", f"127.0.0.1:{here.port}/"))]
        docker("rmi", "--force", *ours, check=False)


@pytest.fixture(scope="module")
def signed_in(aws: Aws, tmp_path_factory) -> str:
    """Sign in to the registry with root's key, as in localstack/README.md, and return Docker's configuration folder."""
    folder = str(tmp_path_factory.mktemp("docker"))
    words = ["docker", "login", "--username", aws.key_id, "--password-stdin", f"127.0.0.1:{aws.port}"]
    process = run(*words, text=aws.secret, DOCKER_CONFIG=folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(scope="module")
def image(aws: Aws, signed_in: str) -> str:
    """Push an image to the stand-in's registry, and remove the local image of that name."""
    aws.client("ecr").create_repository(repositoryName="sleeper")
    name = f"127.0.0.1:{aws.port}/sleeper:1"
    docker("tag", BASE, name)
    docker("push", name, seconds=300, DOCKER_CONFIG=signed_in)
    docker("rmi", name)
    return name


@pytest.fixture(scope="module")
def task(aws: Aws, image: str) -> str:
    """Start a task, wait until it runs, and return its ARN."""
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
        description = ecs.describe_tasks(cluster="lab", tasks=[arn])["tasks"][0]
        assert description["lastStatus"] != "STOPPED", description.get("stoppedReason")
        return bool(description["lastStatus"] == "RUNNING")

    until(runs, "the task runs", 120)
    return arn


def test_the_registry_holds_what_was_pushed(aws, image):
    """ECR lists a pushed image under its tag."""
    (identifier,) = aws.client("ecr").list_images(repositoryName="sleeper")["imageIds"]
    assert identifier["imageTag"] == "1"


def test_a_repository_must_exist(aws, signed_in):
    """A push to an unknown repository fails and does not create the repository, as on AWS."""
    name = f"127.0.0.1:{aws.port}/unknown:1"
    docker("tag", BASE, name)
    assert run("docker", "push", name, DOCKER_CONFIG=signed_in).returncode != 0


def test_the_registry_gives_and_takes_nothing_without_a_password(aws, image, tmp_path):
    """Push and pull need a sign-in, which fails with another password and works with a token of ECR, as on AWS."""
    docker("tag", BASE, f"127.0.0.1:{aws.port}/sleeper:2")
    for verb, tag in (("push", "2"), ("pull", "1")):
        process = run("docker", verb, f"127.0.0.1:{aws.port}/sleeper:{tag}", DOCKER_CONFIG=str(tmp_path))
        assert process.returncode != 0
        assert "no basic auth credentials" in process.stderr + process.stdout
    data = aws.client("ecr").get_authorization_token()["authorizationData"][0]
    token = base64.b64decode(data["authorizationToken"]).decode().partition(":")[2]
    for password, code in (("ministack-auth-token", 1), (token, 0)):
        words = ["docker", "login", "--username", "AWS", "--password-stdin", f"127.0.0.1:{aws.port}"]
        assert run(*words, text=password, DOCKER_CONFIG=str(tmp_path)).returncode == code
    docker("push", f"127.0.0.1:{aws.port}/sleeper:2", seconds=300, DOCKER_CONFIG=str(tmp_path))


def test_a_task_is_a_container_on_the_network(aws, task):
    """A task is a container of an image from the registry, on the stand-in's own network."""
    (container,) = aws.tasks()
    assert docker("inspect", "--format", "{{.State.Status}}", container) == "running"
    label = '{{index .Config.Labels "com.amazonaws.ecs.task-arn"}}'
    assert docker("inspect", "--format", label, container) == task
    networks = docker(
        "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", container
    )
    assert networks.split() == [aws.name]


def test_a_task_is_confined(aws, task):
    """A task has the same restrictions as every container of the lab."""
    host = json.loads(docker("inspect", aws.tasks()[0]))[0]["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    assert (host["Privileged"], host["Binds"], host["PidMode"]) == (False, None, "")
    assert 0 < host["Memory"] <= 2**30
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_a_task_reaches_the_stand_in_as_anybody_does(aws, task):
    """A task finds the stand-in by its environment, and without a key gets the health check but no role's keys."""
    script = """
import os, urllib.error, urllib.request
base = os.environ["AWS_ENDPOINT_URL"]
for url in (base + "/_ministack/health", base + "/", os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]):
    try:
        print(urllib.request.urlopen(url, timeout=5).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    assert docker("exec", aws.tasks()[0], "python3", "-c", script).split() == ["200", "403", "403"]


HOST = {"volumes": [{"name": "v", "host": {"sourcePath": "/"}}]}
MOUNT = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/host"}]}
CAPABLE = {"linuxParameters": {"capabilities": {"add": ["SYS_ADMIN"]}}}


@pytest.mark.parametrize(
    ("definition", "container", "reason"),
    [
        ({}, {"privileged": True}, "Privileged"),
        (HOST, MOUNT, "Binds"),
        ({"volumes": [{"name": "v", "host": {"sourcePath": str(SOCKET)}}]}, MOUNT, "Binds"),
        ({"networkMode": "host"}, {}, "network"),
        ({"pidMode": "host"}, {}, "PidMode"),
        ({}, CAPABLE, "CapAdd"),
        ({}, {"image": "docker.io/library/nothing-of-ours:1"}, "own registry"),
    ],
    ids=[
        "privileged",
        "a mount of /",
        "the engine's socket",
        "the host's network",
        "its processes",
        "a capability",
        "an image",
    ],
)
def test_a_task_that_wants_the_machine_does_not_run(aws, image, definition, container, reason):
    """A task that asks for access to the machine stops with the reason and leaves no container."""
    before = set(aws.tasks())
    containers = [{"name": "c", "image": image, "command": ["sleep", "900"], **container}]
    assert reason in aws.ended(containerDefinitions=containers, **definition)
    assert set(aws.tasks()) == before


def test_an_instance_of_ec2_is_no_container(aws, image):
    """The stand-in starts containers only for ECS tasks, although MiniStack would start one for an EC2 instance."""
    ec2, before = aws.client("ec2"), docker("ps", "--all", "--quiet").split()
    ami = ec2.register_image(Name="box", ImageLocation=image)["ImageId"]
    with pytest.raises(ClientError, match="the tasks of ECS only"):
        ec2.run_instances(ImageId=ami, MinCount=1, MaxCount=1)
    assert set(docker("ps", "--all", "--quiet").split()) <= set(before)


def test_a_service_pulls_with_the_password_and_is_reached_through_the_load_balancer(aws, image):
    """A service pulls with the password, and its load balancer needs no key but refuses a page's foreign origin."""
    docker("rmi", image, check=False)
    ecs, elb = aws.client("ecs"), aws.client("elbv2")
    command = ["python3", "-m", "http.server", "8000", "--directory", "/usr/local"]
    ecs.register_task_definition(
        family="web",
        networkMode="awsvpc",
        containerDefinitions=[
            {"name": "web", "image": image, "command": command, "portMappings": [{"containerPort": 8000}]}
        ],
    )
    balancer = elb.create_load_balancer(Name="front", Subnets=["subnet-1"])["LoadBalancers"][0]
    group = elb.create_target_group(Name="web", Protocol="HTTP", Port=8000, TargetType="ip", VpcId="vpc-00000001")
    arn = group["TargetGroups"][0]["TargetGroupArn"]
    actions = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=actions)
    ecs.create_cluster(clusterName="lab")
    ecs.create_service(
        cluster="lab",
        serviceName="web",
        taskDefinition="web",
        desiredCount=1,
        loadBalancers=[{"targetGroupArn": arn, "containerName": "web", "containerPort": 8000}],
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    )

    def ask(path: str, **headers: str) -> int:
        return urllib3.request(
            "GET", aws.url + path, headers={"Host": balancer["DNSName"], **headers}, retries=False, timeout=10
        ).status

    try:
        until(lambda: ask("/lib/") == 200, "the task answers", 120)
        assert ask("/_ministack/health") == ask("/health") == ask("/v2/") == 404, "the task's own answer"
        assert ask("/lib/", Origin="http://evil.example") == 403
    finally:
        ecs.delete_service(cluster="lab", service="web", force=True)
    until(lambda: not [t for t in aws.tasks() if "http.server" in docker("inspect", t, check=False)], "it ends", 60)


def test_a_published_port_is_on_127_0_0_1(aws, image):
    """A task's published port is on 127.0.0.1 only, although MiniStack would publish it on every address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ecs = aws.client("ecs")
    ecs.create_cluster(clusterName="lab")
    mapping = [{"containerPort": 8000, "hostPort": port}]
    ecs.register_task_definition(
        family="bridge",
        networkMode="bridge",
        containerDefinitions=[{"name": "b", "image": image, "command": ["sleep", "900"], "portMappings": mapping}],
    )
    arn = ecs.run_task(cluster="lab", taskDefinition="bridge")["tasks"][0]["taskArn"]

    def bound() -> Any:
        containers = [json.loads(docker("inspect", each))[0] for each in aws.tasks()]
        return [each["HostConfig"]["PortBindings"] for each in containers if each["HostConfig"]["PortBindings"]]

    try:
        assert until(bound, "the task runs") == [{"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}]
    finally:
        ecs.stop_task(cluster="lab", task=arn)


def test_a_stopped_task_is_gone(aws, task):
    """The container of a stopped task is removed."""
    aws.client("ecs").stop_task(cluster="lab", task=task)
    until(lambda: not aws.tasks(), "the container is removed", 90)


def test_state_outlives_a_graceful_stop(aws, image, signed_in):
    """After a graceful stop and a start the repository, the image, the task definition and the bucket are there."""
    aws.client("s3").create_bucket(Bucket="kept")
    docker("stop", "--time", "60", aws.name, seconds=90)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", aws.name) == "0"
    docker("start", aws.name)
    aws.wait()
    repositories = aws.client("ecr").describe_repositories()["repositories"]
    assert [r["repositoryName"] for r in repositories] == ["sleeper"]
    docker("pull", image, seconds=120, DOCKER_CONFIG=signed_in)
    assert aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
    assert [b["Name"] for b in aws.client("s3").list_buckets()["Buckets"]] == ["kept"]
