"""Tests that the lab in containers does the same as the lab of processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys

import msgspec
import pytest
import urllib3
from dotenv import dotenv_values

from lab import env_file
from lab.registry import Registry
from lab.settings import SETTINGS
from launcher.services import CONTAINERS
from tests.conftest import Lab, free_port
from tests.docker.conftest import PROJECT, docker, inspect, ours
from tests.emulator import Emulator
from tests.lab.conftest import BENIGN, Load, eventually
from tests.lab.test_settings import table as bad_table
from tests.unit.test_settings import SECRETS

NAMES = sorted(service.name for service in CONTAINERS)


def recorded(lab) -> set[str]:
    """Return the ids of all events in the volume that the API writes to."""
    process = lab.run("docker", "compose", "exec", "-T", "api", "sh", "-c", "cat /data/events/*.ndjson")
    assert process.returncode == 0, process.stderr
    return {msgspec.json.decode(line)["event.id"] for line in process.stdout.splitlines()}


def well(lab) -> bool:
    return lab.run(sys.executable, "-m", "launcher", "status").returncode == 0


def test_compose_finds_nothing_to_say(boxed):
    """`docker compose config` gives no error or warning when it is run by hand with .env.example and .env."""
    files = ["--env-file", ".env.example", "--env-file", ".env", "--profile", "*"]
    process = boxed.run("docker", "compose", *files, "config", "--quiet", MODEL_NAME="x")
    assert (process.returncode, process.stdout + process.stderr) == (0, "")


def test_the_first_pipeline_ran_in_the_trainers_container(boxed):
    """The first pipeline's champion is served at the usual addresses, and the clone's files belong to its owner."""
    output = (boxed.root / "up.log").read_text()
    assert "champion: breast-cancer-wisconsin version 1" in output
    assert re.search(r"API +http://127\.0\.0\.1:\d+ +up, version 1 ", output)
    result = boxed.root / "models" / "candidates" / "logistic-regression" / "result.json"
    assert result.stat().st_uid == os.getuid()
    status, answer = boxed.api("POST", "/predict", BENIGN)
    assert (status, answer["label"], answer["model"]["version"]) == (200, "benign", 1)
    assert docker("ps", "--all", "--quiet", "--filter", f"name={PROJECT}-trainer") == "", "it is gone"


def test_every_container_is_confined(boxed):
    """The engine reports the restrictions of compose.yaml for every container."""
    for name in NAMES:
        container = inspect(name)
        host = container["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert container["Config"]["User"] not in ("", "0", "root"), name
        for bindings in host["PortBindings"].values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, name
    assert not inspect("postgres")["HostConfig"]["PortBindings"]
    assert set(inspect("postgres")["NetworkSettings"]["Networks"]) == {f"{PROJECT}_stores"}
    assert docker("network", "inspect", "--format", "{{.Internal}}", f"{PROJECT}_stores") == "true"


def test_what_is_answered_is_on_record(boxed):
    """A prediction is recorded in files that only their owner and Filebeat's group may read."""
    status, answer = boxed.api("POST", "/predict", BENIGN)
    assert status == 200
    assert answer["id"] in recorded(boxed)
    modes = boxed.run("docker", "compose", "exec", "-T", "api", "sh", "-c", "stat -c '%a %u:%g' /data/events/*.ndjson")
    # The API's files, and the trainer's, which runs as the user of this clone.
    assert set(modes.stdout.splitlines()) == {"640 10001:0", f"640 {os.getuid()}:0"}


@pytest.mark.parametrize("name", [*NAMES, "postgres"])
def test_what_is_killed_comes_back(boxed, name):
    """A container restarts after a kill of its first process (`docker kill` would stop it), and predictions go on."""
    before = inspect(name)["State"]
    with Load(int(boxed.env["API_PORT"]), clients=1) as load:
        try:
            os.kill(before["Pid"], signal.SIGKILL)
        except (PermissionError, ProcessLookupError) as error:
            pytest.skip(f"a container's process cannot be killed from here: {error}")
        assert eventually(lambda: inspect(name)["State"]["StartedAt"] != before["StartedAt"], 60)
        assert eventually(lambda: well(boxed), 120)
    assert load.answers
    assert name == "api" or load.failures == []


def test_a_second_training_is_followed(boxed):
    """`make train` with another metric decides again among the same candidates and registers nothing twice."""
    process = boxed.run(sys.executable, "-m", "launcher", "train", "--metric", "recall")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    assert "recall" in process.stdout
    assert eventually(lambda: boxed.api("GET", "/readyz")[0] == 200)


def test_a_version_is_reproduced_where_it_was_trained(boxed):
    """`make reproduce` rebuilds a version from its commit in the trainer's container, with the same results."""
    process = boxed.run(sys.executable, "-m", "launcher", "reproduce", "--version", "1")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    assert [line.split()[1] for line in process.stdout.splitlines() if not line.startswith("note")] == ["same"] * 4


def test_locust_and_dask_on_their_profiles(boxed):
    """With their profiles, Locust's page loads the API, and the trainer's search runs on the Dask cluster."""
    profiles = {"COMPOSE_PROFILES": "locust,dask"}
    try:
        process = boxed.run(sys.executable, "-m", "launcher", "up", **profiles)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
        page = boxed.url("LOCUST_PORT")
        assert urllib3.request("POST", f"{page}/swarm", fields={"user_count": "2", "spawn_rate": "2"}).status == 200
        assert eventually(lambda: _stats(page)["num_requests"] > 200)
        assert _stats(page)["num_failures"] == 0
        scheduler = "DASK_SCHEDULER_ADDRESS=tcp://dask-scheduler:8786"
        trainer = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "-e", scheduler, "trainer"]
        env = {**profiles, **dict(line.split("=", 1) for line in _settings(boxed))}
        process = boxed.run(*trainer, "python", "-m", "trainer", "train", "--params", "params.yaml", **env)
        assert process.returncode == 0, process.stderr[-2000:]
        assert "logistic-regression: trained" in process.stdout
        assert inspect("dask-worker")["State"]["Health"]["Status"] == "healthy"
        look = "cat .env .dvc/* .lab/* 2>/dev/null; test -f params.yaml && echo problem"
        assert (
            boxed.run("docker", "compose", "exec", "-T", "locust", "sh", "-c", look, **profiles).stdout == "problem\n"
        )
    finally:
        boxed.run("docker", "compose", "--profile", "locust", "--profile", "dask", "rm", "--force", "--stop", *PROFILES)


PROFILES = ("locust", "dask-worker", "dask-scheduler")


def _stats(page: str) -> dict:
    rows = msgspec.json.decode(urllib3.request("GET", f"{page}/stats/requests").data)["stats"]
    return next(each for each in rows if each["name"] == "Aggregated")


def _settings(lab) -> list[str]:
    """Return the settings that Compose needs besides .env when it is run by hand."""
    lines = (lab.root / ".env.example").read_text().splitlines()
    known = [line for line in lines if re.match(r"[A-Z_0-9]+=", line) and line.partition("=")[0] not in lab.env]
    return [*known, "MODEL_NAME=breast-cancer-wisconsin", f"LAB_UID={os.getuid()}", f"LAB_GID={os.getgid()}"]


def test_a_released_image_has_its_champion_inside(boxed, tmp_path):
    """An image built with a package serves that package without registry, writable root or kept state."""
    registry = Registry(boxed.url("MLFLOW_PORT"), "breast-cancer-wisconsin")
    card, model = registry.download(registry.version(1))
    for name, body in (("card.json", card), ("model.onnx", model), ("version", b"1")):
        (tmp_path / name).write_bytes(body)
    image, port = f"lab/released:{PROJECT}", free_port(set())
    context = ["--build-context", f"package={tmp_path}", "--file", "api/Dockerfile", "--tag", image, str(boxed.root)]
    assert boxed.run("docker", "build", *context).returncode == 0
    confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", f"{PROJECT}_lab"]  # noqa: S108
    options = ["-e", "MLFLOW_TRACKING_URI=http://127.0.0.1:9", "-e", "MODEL_NAME=breast-cancer-wisconsin"]
    name = docker("run", "--detach", *confined, *options, "--publish", f"127.0.0.1:{port}:8000", image)
    try:
        alone = Lab(boxed.root, boxed.env | {"API_PORT": str(port)})
        assert eventually(lambda: _answers(alone))
        assert alone.api("GET", "/readyz")[1]["version"] == 1
        assert alone.api("POST", "/predict", BENIGN)[1]["label"] == "benign"
    finally:
        docker("rm", "--force", "--volumes", name)


def _answers(lab) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return lab.api("GET", "/healthz")[0] == 200
    return False


def test_the_stand_in_aws_knows_no_secret_but_its_own(boxed):
    """The AWS stand-in has no secret but its own, and shares no network with the lab's other services."""
    env_values = dotenv_values(boxed.root / ".env")
    secrets = {setting.name: env_values[setting.name] for setting in SETTINGS if setting.secret}
    known = "\n".join(inspect("aws")["Config"]["Env"])
    assert {name for name, value in secrets.items() if value in known} == {
        "AWS_EMULATOR_KEY_ID",
        "AWS_EMULATOR_SECRET_KEY",
    }
    networks = {name: set(inspect(name)["NetworkSettings"]["Networks"]) for name in NAMES}
    assert networks.pop("aws") == {f"{PROJECT}_aws"}
    assert f"{PROJECT}_aws" not in set().union(*networks.values())


# Tries each address, and says which answer.
PROBE = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        print("open", place, flush=True)
    except OSError:
        pass
print("probed", flush=True)
"""
PORTS = {"api": 8000, "dashboard": 8501, "mlflow": 5000, "s3": 9000, "postgres": 5432, "aws": 4566}


def test_a_task_reaches_no_service_of_the_lab(boxed):
    """A task reaches no service of the lab by address, name or published port, except the AWS stand-in itself."""
    places, control = [], []
    for name, port in PORTS.items():
        for network in inspect(name)["NetworkSettings"]["Networks"].values():
            places.append(f"{network['IPAddress']}:{port}")
        control += [f"{name}:{port}"] if name != "postgres" else []
    (gateway,) = {n["Gateway"] for n in inspect("aws")["NetworkSettings"]["Networks"].values()}
    published = [f"{gateway}:{boxed.env[name]}" for name in ("API_PORT", "MLFLOW_PORT", "S3_PORT", "DASHBOARD_PORT")]
    own = f"{next(iter(inspect('aws')['NetworkSettings']['Networks'].values()))['IPAddress']}:4566"
    # The probe sees what there is to see, where it may.
    inside = [place for place in control if not place.startswith("aws")]
    output = boxed.run("docker", "compose", "exec", "-T", "mlflow", "python", "-c", PROBE, *inside).stdout.splitlines()
    assert output == [*(f"open {place}" for place in inside), "probed"]

    env_values = dotenv_values(boxed.root / ".env")
    aws = Emulator(int(boxed.env["AWS_PORT"]), env_values["AWS_EMULATOR_KEY_ID"], env_values["AWS_EMULATOR_SECRET_KEY"])
    aws.client("logs").create_log_group(logGroupName="probe")
    logs = {"awslogs-group": "probe", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}
    container = {
        "name": "probe",
        "image": f"lab/api:{PROJECT}",
        "command": ["python", "-c", PROBE, *places, *control, *published],
        "logConfiguration": {"logDriver": "awslogs", "options": logs},
    }
    ecs = aws.client("ecs")
    ecs.create_cluster(clusterName="probe")
    ecs.register_task_definition(family="probe", networkMode="awsvpc", containerDefinitions=[container])
    ecs.run_task(cluster="probe", taskDefinition="probe")

    def lines() -> list[str]:
        streams = aws.client("logs").describe_log_streams(logGroupName="probe")["logStreams"]
        names = [stream["logStreamName"] for stream in streams]
        words = {"logGroupName": "probe", "startFromHead": True}
        return [
            e["message"] for n in names for e in aws.client("logs").get_log_events(logStreamName=n, **words)["events"]
        ]

    assert eventually(lambda: "probed" in lines(), 180)
    assert sorted(lines()) == sorted([f"open {own}", "open aws:4566", "probed"])


def test_down_and_up_keep_everything(boxed):
    """`down` and `up` keep models, events and data without new training, and `down` ends the AWS stand-in's tasks."""
    label = f"ministack.instance={PROJECT}-aws:4566"
    docker("run", "--detach", "--label", label, "--network", f"{PROJECT}_aws", f"lab/api:{PROJECT}", "sleep", "900")
    _, answer = boxed.api("POST", "/predict", BENIGN)
    version = answer["model"]["version"]
    assert boxed.run(sys.executable, "-m", "launcher", "down").returncode == 0
    assert ours("container") == ours("network") == set()
    assert docker("ps", "--all", "--quiet", "--filter", f"label={label}") == ""
    process = boxed.run(sys.executable, "-m", "launcher", "up")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    assert "running the first pipeline" not in process.stdout
    assert boxed.api("GET", "/readyz")[1]["version"] == version
    assert answer["id"] in recorded(boxed)
    pulled = boxed.run("dvc", "pull", "--force", "dvc.yaml")
    assert pulled.returncode == 0, pulled.stderr


def test_logs_and_changed_settings(boxed):
    """`make logs` shows one service's log, and a changed setting recreates only the containers that it concerns."""
    assert "0.0.0.0:8000" in boxed.run(sys.executable, "-m", "launcher", "logs", "api").stdout
    before = {name: inspect(name)["Id"] for name in NAMES}
    process = boxed.run(sys.executable, "-m", "launcher", "up", API_WORKERS="1")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    changed = {name for name in NAMES if inspect(name)["Id"] != before[name]}
    assert changed == {"api"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("API_PORT", "abc", "API_PORT is 'abc'"),
        ("DASHBOARD_PORT", "taken", "(DASHBOARD_PORT) is in use by"),
        ("S3_CONSOLE_PORT", "clash", "both need port"),
        ("PARAMS", "tables/bad/params.yaml", "row 2, frontal_lobe: 'x9' is not a number"),
    ],
)
def test_what_cannot_work_stops_nothing_and_is_not_kept(boxed, name, value, message):
    """An unusable setting is refused first: the same containers keep running, and `.env` stays as it was."""
    bad_table(boxed)
    env_values, before = (boxed.root / ".env").read_bytes(), {each: inspect(each)["Id"] for each in NAMES}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        value = {"taken": str(holder.getsockname()[1]), "clash": boxed.env["S3_PORT"]}.get(value, value)
        process = boxed.run(sys.executable, "-m", "launcher", "up", **{name: value})
    assert process.returncode == 1
    assert message in process.stderr
    assert (boxed.root / ".env").read_bytes() == env_values
    assert {each: inspect(each)["Id"] for each in NAMES} == before
    assert well(boxed)


def test_ports_change_hands(boxed):
    """A port may pass from one of the lab's containers to another."""
    ports = {"API_PORT": boxed.env["DASHBOARD_PORT"], "DASHBOARD_PORT": boxed.env["API_PORT"]}
    process = boxed.run(sys.executable, "-m", "launcher", "up", **ports)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    assert Lab(boxed.root, boxed.env | ports).api("POST", "/predict", BENIGN)[0] == 200
    process = boxed.run(sys.executable, "-m", "launcher", "up")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]


def test_each_container_has_its_own_secrets_only(boxed):
    """The environment of every container, as the engine reports it, has only that container's own secrets."""
    env_values = env_file.read(boxed.root / ".env")
    secrets = {each.name: env_values[each.name] for each in SETTINGS if each.secret}
    for name in (*NAMES, "postgres"):
        values = "\n".join(inspect(name)["Config"]["Env"])
        assert {each for each, value in secrets.items() if value in values} == SECRETS.get(name, set()) & secrets.keys()
