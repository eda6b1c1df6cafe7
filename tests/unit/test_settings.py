"""The sources of settings, wrong settings that are refused before a start, and the secrets of each container."""

from __future__ import annotations

import re
import socket

import pytest
import yaml

from lab import settings
from lab.errors import LabError
from lab.setting_types import GRPC_OFFSET
from lab.settings import NAMES, ROOT, SETTINGS
from launcher import compose, docker_preflight, preflight
from launcher.services import CONTAINERS, SERVICES
from tests.conftest import free_port

S3, STORE, API = {"S3_ACCESS_KEY", "S3_SECRET_KEY"}, {"POSTGRES_PASSWORD"}, {"API_KEY"}
# The secrets of each container.
SECRETS = {
    "aws": {"AWS_EMULATOR_KEY_ID", "AWS_EMULATOR_SECRET_KEY"},
    "s3": S3,
    "postgres": STORE,
    "bucket": S3,
    "mlflow": S3 | STORE,
    "api": API | {"APM_SECRET_TOKEN"},
    "dashboard": API,
    "trainer": S3,
    "locust": API,
    "elasticsearch": {"ELASTIC_PASSWORD"},
    "elastic-setup": {
        *("ELASTIC_PASSWORD", "KIBANA_PASSWORD", "LOGSTASH_PASSWORD", "APM_PASSWORD", "READER_PASSWORD"),
    },
    "kibana": {"KIBANA_PASSWORD", "KIBANA_ENCRYPTION_KEY"},
    "kibana-setup": {"ELASTIC_PASSWORD"},
    "logstash": {"LOGSTASH_PASSWORD"},
    "apm-server": {"APM_PASSWORD", "APM_SECRET_TOKEN"},
}


@pytest.fixture(autouse=True)
def env_file(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    return tmp_path / ".env"


@pytest.fixture
def fresh_settings():
    return settings.load(settings.draw(settings.load({})))


def with_(fresh_settings, **changes: str) -> settings.Settings:
    return settings.parse({**fresh_settings.texts(), **changes})


def test_only_what_was_meant_counts(monkeypatch):
    """A variable of the shell is a setting only where LAB_SETTINGS names it; the note has names and no value."""
    monkeypatch.setenv("S3_SECRET_KEY", "of-another-project")
    monkeypatch.setenv("API_PORT", "8010")
    monkeypatch.setenv("API_WORKERS", "2")
    monkeypatch.setenv("MLFLOW_PORT", "5010")
    monkeypatch.setenv(NAMES, "MLFLOW_PORT HOME S3_PORT")
    result = settings.load()
    assert (result.api_port, result.mlflow_port, result.s3_secret_key) == (8000, 5010, "")
    note = settings.ignored()
    assert "API_PORT, S3_SECRET_KEY" in note
    assert not re.search("MLFLOW|WORKERS|another|8010", note)


def test_an_empty_value_is_the_tables(env_file):
    """`make up API_KEY=` clears a key, `make up API_PORT=` goes back to the default, and both are kept."""
    settings.remember({"API_KEY": "abc #1", "API_PORT": "8010"})
    assert settings.load({}).api_key == "abc #1"
    assert settings.load({"API_KEY": ""}).api_key == ""
    assert settings.remember({"API_KEY": "", "API_PORT": ""}) == {"API_PORT": ""}
    assert (settings.load({}).api_key, settings.load({}).api_port) == ("", 8000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("S3_BUCKET", value)
            for value in ("ab", "Lab", "a_b", "-ab", "ab-", "a..b", "192.168.0.1", "xn--a", "a" * 64)
        ),
        *(("API_KEY", value) for value in (" padded", "padded ", "clé", "a\nb")),
        *(("S3_SECRET_KEY", value) for value in ("short", "has a space", "has#hash#", "%(interpolated)s")),
        ("POSTGRES_PASSWORD", "a@b"),
        ("COMPOSE_PROJECT_NAME", "Lab"),
        ("KIBANA_ENCRYPTION_KEY", "short"),
        *(("MLFLOW_URL", value) for value in ("mlflow", "ftp://x", "http://", "http://x:99999")),
        *(("API_WORKERS", value) for value in ("0", "-1", "x", "65")),
        *(("API_PORT", value) for value in ("abc", "0", "65536")),
        ("S3_PORT", "55536"),
        *(("AWS_REGION", value) for value in ("Frankfurt", "eu central 1", "eu-central")),
        *(("AWS_ROLE_ARN", value) for value in ("pipeline", "arn:aws:iam::1:role/pipeline")),
        ("AWS_TARGET", "localstack"),
        ("ENGINE", "podman"),
        ("ALLOWED_HOSTS", "https://lab.example.com"),
        ("LITE", "yes"),
        ("START_SECONDS", "0"),
        ("PARAMS", "a\tb"),
    ],
)
def test_a_value_that_nothing_starts_with(fresh_settings, name, value):
    """A wrong value is refused with the setting's name, and a secret is not shown."""
    with pytest.raises(LabError, match=name) as caught:
        with_(fresh_settings, **{name: value})
    if name.endswith("KEY"):
        assert value not in str(caught.value)


def test_a_setting_that_cannot_be_used_can_be_replaced_and_does_not_keep_the_lab_running(env_file, fresh_settings):
    """The command line replaces a wrong value in `.env`, and `make down` works with the wrong value."""
    settings.remember(settings.draw(settings.load({})) | {"API_PORT": "high", "COMPOSE_PROJECT_NAME": "mine"})
    with pytest.raises(LabError, match=r"API_PORT is 'high'; it must be a whole number from 1 to 65535"):
        settings.load({})
    assert settings.load({"API_PORT": "8010"}).api_port == 8010
    result = settings.load_to_stop()
    assert (result.api_port, result.compose_project_name) == (8000, "mine")
    assert len(result.secret("S3_SECRET_KEY")) == 40


def test_settings_are_not_shown(fresh_settings):
    """The text form of the settings has no values, so no traceback and no test report shows a secret."""
    assert repr(fresh_settings) == "Settings(…)"


def test_the_texts_of_the_settings_mean_the_settings(fresh_settings):
    """Processes read from their environment what the launcher read from `.env`."""
    assert settings.parse(fresh_settings.texts()) == fresh_settings
    assert {name: fresh_settings.texts()[name] for name in ("LITE", "API_PORT", "ENGINE")} == {
        "LITE": "0",
        "API_PORT": "8000",
        "ENGINE": "auto",
    }


@pytest.mark.parametrize("bucket", ["lab", "a.b-c", "0" * 63])
def test_values_that_are_right(fresh_settings, bucket):
    """The defaults with fresh secrets, and every bucket name that S3 allows, are accepted."""
    key = "any 'printable' \"ASCII\" $value"
    url = "https://mlflow.example:8443/x"
    result = with_(fresh_settings, S3_BUCKET=bucket, API_KEY=key, MLFLOW_URL=url)
    assert (result.s3_bucket, result.api_key, result.tracking_url) == (bucket, key, url)


@pytest.mark.parametrize(
    ("services", "one", "other"),
    [
        (SERVICES, "S3_MASTER_PORT", "S3_VOLUME_PORT"),
        (SERVICES, "S3_PORT", "S3_FILER_PORT"),
        (CONTAINERS, "S3_PORT", "S3_CONSOLE_PORT"),
    ],
)
def test_two_ports_of_one_service(fresh_settings, services, one, other):
    """Two equal ports of one service are an error, as are those of two services."""
    with pytest.raises(LabError, match="both need port") as caught:
        preflight.check_ports(with_(fresh_settings, **{one: "12000", other: "12000"}), services)
    assert {one, other} <= set(caught.value.message.split())


@pytest.mark.parametrize("offset", [0, GRPC_OFFSET])
def test_the_advice_for_a_taken_port_can_be_followed(fresh_settings, offset):
    """When one of S3's two ports is taken, the port in the advice is near, and the check passes with it."""
    ports_in_use: set[int] = set()
    ports = {s.name: str(free_port(ports_in_use)) for s in SETTINGS if s.port}
    mine = with_(fresh_settings, **ports)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", mine.port("S3_PORT") + offset))
        holder.listen()
        with pytest.raises(LabError, match=r"\(S3_PORT\) is in use") as caught:
            preflight.check_ports(mine, SERVICES)
        advice = re.search(r"make up S3_PORT=(\d+)$", caught.value.remedy)[1]
        assert abs(int(advice) - mine.port("S3_PORT")) < 500
        preflight.check_ports(with_(mine, S3_PORT=advice), SERVICES)
        # What this lab's own service holds will be free, or stay with it.
        preflight.check_ports(mine, SERVICES, {holder.getsockname()[1]})


def test_advice_at_the_end_of_the_range(fresh_settings):
    """The advice names neither a port above 65535 nor the taken one."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(LabError, match="in use") as caught:
            preflight.check_ports(with_(fresh_settings, API_PORT=str(port)), CONTAINERS[:1])
    advice = int(caught.value.remedy.rpartition("=")[2])
    assert 1_024 <= advice <= 65_535
    assert advice != port


def _services() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_each_container_has_its_own_secrets_only():
    """compose.yaml gives each container the secrets that it needs and no others."""
    secret = {setting.name for setting in SETTINGS if setting.secret or setting.hidden}
    for name, service in _services().items():
        assert not service.get("env_file"), name
        text = yaml.safe_dump({key: service.get(key) for key in ("environment", "command", "healthcheck")})
        assert set(re.findall(r"\$\{(\w+)", text)) & secret == SECRETS.get(name, set()), name


def test_compose_asks_the_shell_for_nothing(monkeypatch, fresh_settings):
    """Every variable in compose.yaml has the value of the lab, also when the shell has another one."""
    monkeypatch.setattr(docker_preflight, "_info", lambda _form: "")
    names = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    for name in names - {"DOCKER_GID"}:
        monkeypatch.setenv(name, "of-another-project")
    variables = compose.environment(fresh_settings)
    assert [name for name in sorted(names) if variables.get(name) in (None, "of-another-project")] == []


def test_composes_own_variables_still_count(monkeypatch, fresh_settings, env_file):
    """COMPOSE_PROFILES comes from the shell or from .env, as Compose itself reads it."""
    monkeypatch.setattr(docker_preflight, "_info", lambda _form: "")
    monkeypatch.setattr(compose, "DOTENV", env_file)
    env_file.write_text("COMPOSE_PROFILES=dask\n")
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    assert compose.environment(with_(fresh_settings, LITE="1"))["COMPOSE_PROFILES"] == "dask"
    monkeypatch.setenv("COMPOSE_PROFILES", "locust,dask")
    assert compose.environment(with_(fresh_settings, LITE="0"))["COMPOSE_PROFILES"] == "locust,dask,elastic"
