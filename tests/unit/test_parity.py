"""services/supervisord.conf and compose.yaml describe the same lab: services, ports, environment, commands."""

from __future__ import annotations

import configparser
import re
import shlex
from typing import Any

import pytest
import yaml

from lab.settings import ROOT, SETTINGS, Settings
from launcher.services import CONTAINERS, ELASTIC, SERVICES

# What only containers have, and why.
MORE = {
    "postgres": "MLflow's store; the processes use SQLite",
    "bucket": "`make up` makes the bucket of the processes' S3",
    "trainer": "the processes' trainer is this environment",
    "dask-scheduler": "a profile",
    "dask-worker": "a profile",
    "locust": "a profile",
}
# Names that one engine alone needs, by service.
ONLY_PROCESSES = {
    "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOMEMLIMIT", "TMPDIR"},
    "aws": {"TMPDIR", "DOCKER_HOST"},
}
ONLY_CONTAINERS = {
    "s3": {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"},
    # A process is told the number of its workers on its command line, and of no proxy.
    "api": {"API_WORKERS", "PACKAGE_DIR", "NO_PROXY", "no_proxy"},
    "mlflow": {"NO_PROXY", "no_proxy"},
    "aws": {"MINISTACK_HOSTNAME", "REGISTRY"},
}
WRITABLE = {"elasticsearch"}
IMAGE_ONLY = {"ORT_DISABLE_TELEMETRY", "PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def programs() -> dict[str, Any]:
    config = configparser.RawConfigParser(inline_comment_prefixes=None)
    config.read(ROOT / "services" / "supervisord.conf")
    return {name.partition(":")[2]: config[name] for name in config.sections() if name.startswith("program:")}


def process_environment(program: Any) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', program.get("environment", "")))


def container_environment(service: dict[str, Any]) -> dict[str, str]:
    """The variables of the image, and those of compose.yaml over them."""
    dockerfile = service.get("build", {}).get("dockerfile")
    text = (ROOT / dockerfile).read_text().replace("\\\n", " ") if dockerfile else ""
    last = text.rpartition("\nFROM ")[2]
    words = [word for line in re.findall(r"^ENV (.*)$", last, re.M) for word in shlex.split(line)]
    return {**dict(word.split("=", 1) for word in words), **service.get("environment", {})}


def test_the_same_services():
    """Each process is also a container, and each further container is listed with a reason."""
    elastic = {name for name, service in compose().items() if "elastic" in service.get("profiles", [])}
    assert programs().keys() == {service.name for service in SERVICES}
    assert compose().keys() - elastic - MORE.keys() == programs().keys()
    assert {service.name for service in ELASTIC} <= elastic


def test_the_same_ports():
    """The ports of the table of services are published on 127.0.0.1, each by its setting, and no others."""
    published = {}
    for name, service in compose().items():
        for port in service.get("ports", []):
            host, setting, _ = re.fullmatch(r"([\d.]+):\$\{(\w+)\}:(\d+)", port).groups()
            assert host == "127.0.0.1", name
            published.setdefault(name, set()).add(setting)
    expectation = {service.name: {service.port, *service.more} for service in (*CONTAINERS, *ELASTIC)}
    profiles = {"dask-scheduler": {"DASK_PORT"}, "locust": {"LOCUST_PORT"}}
    assert published == expectation | {name: ports for name, ports in profiles.items() if name in compose()}
    assert {port for ports in published.values() for port in ports} <= {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("name", sorted(programs()))
def test_the_same_environment(name):
    """The variables have the same names, and the same values except for addresses, paths and secrets."""
    container, here = container_environment(compose()[name]), process_environment(programs()[name])
    only = ONLY_CONTAINERS.get(name, set())
    assert container.keys() - IMAGE_ONLY - only == here.keys() - IMAGE_ONLY - ONLY_PROCESSES.get(name, set())
    for key in container.keys() & here.keys() - IMAGE_ONLY:
        values = [str(container[key]), here[key]]
        if not any(re.search(r"[$%/]|127\.0\.0\.1|0\.0\.0\.0|^\d+$", value) for value in values):
            assert values[0] == values[1], key


@pytest.mark.parametrize("name", ["api", "dashboard", "mlflow"])
def test_the_same_command(name):
    """The commands are the same, except for the address, the port and the program that starts them."""
    service, program = compose()[name], programs()[name]
    text = (ROOT / service["build"]["dockerfile"]).read_text()
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', re.findall(r"^CMD (\[.*\])$", text, re.M)[-1])
    command = shlex.split(words[-1].partition("exec ")[2]) if words[0] == "sh" else words
    here = [word.rpartition("/")[2] for word in shlex.split(program["command"])]

    def same(word: str) -> str:
        word = re.sub(r"%\(ENV_(\w+)\)s", r"$\1", word).rpartition("/")[2]
        return re.sub(r"^(127\.0\.0\.1|0\.0\.0\.0)?:?(\$\w+_PORT|8000|8501|5000)?$", "address", word)

    assert [same(word) for word in command] == [same(word) for word in here]


def test_every_container_is_confined():
    """Every container has the limits of the house rules."""
    for name, service in compose().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["read_only"] is True or name in WRITABLE, name
        assert service["restart"] in ("unless-stopped", "no", "on-failure:3"), name
        once = service["restart"] != "unless-stopped"
        assert once or "healthcheck" in service, name
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|_KEY$|TOKEN", key) and value:
                assert "${" in str(value), f"{name}: {key} has a value of its own"


@pytest.mark.parametrize("name", [name for name in compose() if "elastic" in compose()[name].get("profiles", [])])
def test_what_a_configuration_asks_for_is_given(name):
    """Every mounted file exists, every variable is set, and every host is a service of compose.yaml."""
    service = compose()[name]
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        if not source.startswith("./services/"):
            continue
        path = ROOT / source
        assert path.exists(), source
        for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
            text = re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.M)
            assert set(re.findall(r"\$\{(\w+)\}", text)) <= service.get("environment", {}).keys(), file
            for host in re.findall(r"(?:http://|\[\")([a-z][a-z-]+):\d{4}", text):
                assert host in compose() or host == "localhost", (file, host)


def test_kibana_sizes_its_own_heap():
    """Kibana uses three quarters of its limit, and would crash with half a gigabyte less."""
    kibana = compose()["kibana"]
    assert kibana["mem_limit"] == "2g"
    assert "NODE_OPTIONS" not in kibana["environment"]


def test_elastic_has_five_minutes_to_start():
    """The health checks of the Elastic services count no failure in the first five minutes."""
    for name, service in compose().items():
        check = service.get("healthcheck", {})
        assert "elastic" not in service.get("profiles", []) or not check or check["start_period"] == "300s", name
        assert not check or (check["interval"], check["retries"]) == ("30s", 3)


def test_what_is_mounted_from_the_host_may_be_read_under_selinux():
    """Mounts of this clone have the option z and are read-only, except the pipeline's; sockets have no z."""
    for name, service in compose().items():
        for volume in service.get("volumes", []):
            source, _, options = [*volume.split(":"), ""][:3]
            flags = set(filter(None, options.split(",")))
            if source.startswith("/"):
                assert source in ("/var/run/docker.sock", "/dev/null")
                assert not flags & {"z", "Z"}
            elif source.startswith("."):
                assert flags == ({"z"} if name == "trainer" else {"ro", "z"}), (name, volume)
            else:
                assert not flags & {"z", "Z"}, "the engine labels its own volumes"


def test_an_image_that_runs_by_itself_has_as_many_workers_as_the_lab():
    """The image's number of workers is the table's default; a Dockerfile cannot read the table."""
    (count,) = re.findall(r"\bAPI_WORKERS=(\d+)", (ROOT / "api" / "Dockerfile").read_text())
    assert int(count) == Settings().api_workers
