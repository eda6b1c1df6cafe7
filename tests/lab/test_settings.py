"""Tests of a lab that `make up` starts from a hostile shell and that gets unusable settings while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import urllib3

from lab import env_file
from lab.settings import NAMES, SETTINGS
from tests.conftest import Lab, free_port, make_lab, own_processes
from tests.lab.conftest import eventually

NOBODY = "http://127.0.0.1:9"
CANARY = "canary-of-the-shell"
HOSTILE = {
    "AWS_PROFILE": "nobody",
    "AWS_ACCESS_KEY_ID": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "AWS_ENDPOINT_URL": NOBODY,
    "AWS_CONFIG_FILE": "/nonexistent",
    "MLFLOW_TRACKING_TOKEN": CANARY,
    "GITHUB_TOKEN": CANARY,
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), NOBODY),
    # Of another project.
    "S3_SECRET_KEY": CANARY,
    "API_WORKERS": "7",
}
KEY = "abc #1 $HOME 'q' \"d\" \\"
OWN = {
    "supervisord": set(),
    "s3": {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "mlflow": {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "api": {"API_KEY", "APM_SECRET_TOKEN"},
    "dashboard": {"API_KEY"},
    "aws": {"AWS_EMULATOR_KEY_ID", "AWS_EMULATOR_SECRET_KEY"},
}
READ_LEDGER = (
    "from lab import settings; from lab.ledger import Ledger;"
    "print(len(Ledger(settings.load(), 'breast-cancer-wisconsin').read().entries))"
)


def make(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return lab.run("make", *words, f"VENV={sys.prefix}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Bring up a separate lab by make, with an API key that needs quoting."""
    instance = make_lab(tmp_path_factory.mktemp("alone"), ENGINE="embedded", **HOSTILE)
    names = [name for name in instance.env[NAMES].split() if name not in HOSTILE]
    lab = Lab(instance.root, instance.env | {NAMES: " ".join(names)})
    try:
        process = make(lab, "up", f"API_KEY={KEY}")
        assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
        (lab.root / "said").write_text(process.stdout + process.stderr)
        yield lab
    finally:
        make(lab, "down")


def status_of(lab: Lab, key: str) -> int:
    return urllib3.request("GET", f"{lab.url('API_PORT')}/model", headers={"X-API-Key": key}).status


def service_of(process: psutil.Process) -> str:
    return process.environ().get("SUPERVISOR_PROCESS_NAME", "supervisord")


def test_up_from_a_hostile_shell(alone):
    """`make up` trains, stores and serves the first champion, and names ignored variables without their values."""
    output = (alone.root / "said").read_text()
    assert "champion version 1 is served" in output
    assert "note: the shell's API_WORKERS, S3_SECRET_KEY not used" in output
    assert CANARY not in output
    env_values = env_file.read(alone.root / ".env")
    assert env_values["API_KEY"] == KEY
    assert len(env_values["S3_SECRET_KEY"]) == 40
    assert "API_WORKERS" not in env_values
    assert (status_of(alone, KEY), status_of(alone, "abc")) == (200, 401)


def test_each_service_has_its_own_secrets_only(alone):
    """Every process has only its service's own secrets, none on a command line, and nothing of the hostile shell."""
    secrets = {s.name: env_file.read(alone.root / ".env").get(s.name, "") for s in SETTINGS if s.secret or s.hidden}
    secrets = {name: value for name, value in secrets.items() if value}
    names = set()
    for process in own_processes(alone):
        name, environment = service_of(process), process.environ()
        values = "\n".join(environment.values())
        assert {secret for secret, value in secrets.items() if value in values} == OWN[name], name
        assert CANARY not in values, name
        assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "GITHUB_TOKEN"} & environment.keys(), name
        assert not [each for each in environment if each.lower().endswith("_proxy")], name
        assert not [secret for secret, value in secrets.items() if value in " ".join(process.cmdline())], name
        names.add(name)
    assert names | {"aws"} == OWN.keys()


def test_the_pipeline_from_a_hostile_shell(alone):
    """`make train`, the trainer and the ledger work from a hostile shell, and so does `dvc pull` with NO_PROXY."""
    process = make(alone, "train", "METRIC=recall")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert alone.python("-c", READ_LEDGER).strip() in ("1", "2")
    assert "unchanged" in alone.python("-m", "trainer", "promote") + process.stdout
    data = alone.root / "data" / "dataset.csv"
    before = data.read_bytes()
    data.unlink()
    shutil.rmtree(alone.root / ".lab" / "dvc-cache")
    # DVC has no setting that keeps a proxy of the shell away.
    process = alone.run("dvc", "pull", "--quiet", "dvc.yaml:ingest", NO_PROXY="127.0.0.1")
    assert process.returncode == 0, process.stderr
    assert data.read_bytes() == before


def clash(lab: Lab) -> str:
    return f"S3_MASTER_PORT={lab.env['S3_VOLUME_PORT']}"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("API_PORT=abc", "API_PORT is 'abc'"),
        ("API_WORKERS=0", "API_WORKERS is '0'"),
        ("S3_BUCKET=Lab_", "S3_BUCKET is 'Lab_'"),
        ("clash", "both need port"),
        ("taken", r"(API_PORT) is in use by"),
        ("PARAMS=/etc/hostname", "/etc/hostname: "),
        ("PARAMS=tables/bad/params.yaml", "row 2, frontal_lobe: 'x9' is not a number"),
        ("PARAMS=tables/worse/params.yaml", "candidates.logistic-regression: cannot make sklearn.NoSuchThing"),
    ],
)
def test_what_cannot_work_stops_nothing_and_is_not_kept(alone, word, message):
    """An unusable setting is refused first: processes and `.env` stay as they were, and a plain `make up` succeeds."""
    table(alone)
    before, env_values = {p.pid for p in own_processes(alone)}, (alone.root / ".env").read_bytes()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        word = {"taken": f"API_PORT={holder.getsockname()[1]}", "clash": clash(alone)}.get(word, word)
        process = make(alone, "up", word)
    assert process.returncode != 0
    assert message in process.stderr
    assert "What to do: " in process.stderr
    assert {p.pid for p in own_processes(alone)} == before
    assert (alone.root / ".env").read_bytes() == env_values
    assert "is served" in make(alone, "up").stdout
    assert {p.pid for p in own_processes(alone)} == before


def table(lab: Lab) -> None:
    """Copy the crabs table with a new name and a cell that is not a number, and again with an unknown candidate."""
    folder = lab.root / "tables" / "bad"
    if folder.exists():
        return
    shutil.copytree(lab.root / "tables" / "crabs", folder)
    lines = (folder / "params.yaml").read_text().replace("tables/crabs", "tables/bad").splitlines()
    lines = ["name: bad-crabs" if line.startswith("name:") else line for line in lines]
    lines = ['  sha256: ""' if line.startswith("  sha256:") else line for line in lines]
    (folder / "params.yaml").write_text("\n".join(lines) + "\n")
    source = folder / "data" / "source" / "crabs.csv"
    rows = source.read_text().splitlines()
    rows[2] = "x9," + rows[2].partition(",")[2]
    source.write_text("\n".join(rows) + "\n")
    shutil.copytree(folder, lab.root / "tables" / "worse")
    text = (folder / "params.yaml").read_text()
    text = text.replace("sklearn.linear_model.LogisticRegression", "sklearn.NoSuchThing")
    (lab.root / "tables" / "worse" / "params.yaml").write_text(text)


def test_its_own_ports_are_not_taken(alone):
    """A port may pass between the lab's services, given settings are saved, and an empty key means no key."""
    api, dashboard = alone.env["DASHBOARD_PORT"], alone.env["API_PORT"]
    words = (f"API_PORT={api}", f"DASHBOARD_PORT={dashboard}", "API_KEY=")
    process = make(alone, "up", *words)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    env_values = env_file.read(alone.root / ".env")
    assert (env_values["API_PORT"], env_values["DASHBOARD_PORT"], env_values["API_KEY"]) == (api, dashboard, "")
    assert urllib3.request("GET", f"http://127.0.0.1:{api}/model").status == 200
    alone.env.update(API_PORT=api, DASHBOARD_PORT=dashboard)


def test_a_start_cut_short_can_be_stopped(alone):
    """After Ctrl-C while the services start, the new port is not saved, and `make down` ends all processes."""
    make(alone, "down")
    env_values, port = (
        (alone.root / ".env").read_bytes(),
        free_port({int(alone.env[s.name]) for s in SETTINGS if s.port}),
    )
    words = ["make", "up", f"VENV={sys.prefix}", f"MLFLOW_PORT={port}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=alone.root, env=alone.env, stdout=pipe, stderr=pipe, start_new_session=True) as up:
        assert eventually(lambda: any("mlflow" in " ".join(p.cmdline()) for p in own_processes(alone)))
        os.killpg(up.pid, signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode != 0
    assert (alone.root / ".env").read_bytes() == env_values
    assert own_processes(alone)
    assert "stopped" in make(alone, "down").stdout
    assert own_processes(alone) == []
