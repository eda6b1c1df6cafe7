"""The kernel: settings, the problem, the card, and files that must agree."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from importlib.metadata import version

import msgspec
import pytest

from lab import card, errors, problem, settings
from lab.errors import LabError
from lab.settings import ROOT
from launcher import pipeline, preflight
from launcher.services import SERVICES
from trainer import lineage
from trainer.lineage import CODE

PARAMS = (ROOT / "params.yaml").read_text()


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    return tmp_path / ".env"


def test_secrets_are_fresh_and_for_the_owner_alone(env_file):
    """`.env` is written once, mode 600, with secrets that differ from clone to clone."""
    settings.remember(settings.draw(settings.load({})))
    first = settings.load({}).secret("S3_SECRET_KEY")
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert len(first) == 40
    assert settings.draw(settings.load({})) == {}
    env_file.unlink()
    settings.remember(settings.draw(settings.load({})))
    assert settings.load({}).secret("S3_SECRET_KEY") != first


def test_what_is_asked_for_wins_and_is_remembered_without_showing_secrets(env_file):
    """A setting given once on the command line holds for the next command; a secret is never reported."""
    settings.remember(settings.draw(settings.load({})))
    assert settings.load({"API_PORT": "8010"}).api_port == 8010
    assert settings.remember({"API_PORT": "8010", "S3_SECRET_KEY": "a-key-of-mine"}) == {"API_PORT": "8010"}
    assert settings.load({}).api_port == 8010
    assert settings.load({}).secret("S3_SECRET_KEY") == "a-key-of-mine"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600


def test_a_secret_that_is_not_set_is_an_error(env_file):
    """No secret has a default."""
    with pytest.raises(LabError, match="S3_SECRET_KEY is not set"):
        settings.load({}).secret("S3_SECRET_KEY")


@pytest.mark.parametrize("value", ["http", "0", "65536", "²", "-1"])
def test_a_port_that_is_none_names_the_setting(env_file, value):
    """A bad port is refused by name."""
    with pytest.raises(LabError, match="API_PORT is"):
        settings.load({"API_PORT": value})


def test_env_example_is_the_table():
    """.env.example has the settings of the table."""
    assert (ROOT / ".env.example").read_text() == settings.example()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds: 10", "folds: ten", r"\$.evaluation.folds"),
        ("folds: 10", "fold: 10", "unknown field `fold`"),
        ("inner_folds: 3 ", "inner_folds: 10 ", "inner_folds must be below"),
        ("{month: 1990-02, rows: 31}", "{month: 1990-02, rows: 0}", "the group 1990-02 is empty"),
        ("until: 1991-11", "until: 1988-12", "leaves no row"),
        ('value: "4"', 'value: "2"', "same value"),
        ("    - mitoses\n", "", "do not agree on mitoses"),
        ("metric: roc_auc", "metric: rocauc", r"\$.choice.metric"),
        ("id: sample_code_number", "id: mitoses", "must be different columns"),
    ],
)
def test_a_fault_in_params_is_named(old, new, message):
    """A fault in params.yaml is refused with its place."""
    assert old in PARAMS
    with pytest.raises(LabError, match=message):
        problem.parse(PARAMS.replace(old, new, 1))


def test_a_missing_params_file_says_so(tmp_path):
    """A path in PARAMS without a file is one clear message."""
    with pytest.raises(LabError, match="No such file"):
        problem.load(tmp_path / "params.yaml")


def test_another_table_has_the_same_pipeline():
    """The dvc.yaml of another table is the lab's own with other variables."""
    ours = msgspec.yaml.decode((ROOT / "dvc.yaml").read_bytes())
    theirs = msgspec.yaml.decode(pipeline.definition(ROOT / "tables" / "crabs"))
    assert theirs == {**ours, "vars": [{"root": "../..", "here": "tables/crabs/"}]}


def test_what_dvc_tracks_must_be_stated():
    """DVC fails on a parameter that is not in the file, so no tracked parameter has a default."""
    stages = msgspec.yaml.decode((ROOT / "dvc.yaml").read_bytes())["stages"]
    tracked = {key for stage in stages.values() for keys in stage["params"][0].values() for key in keys}
    assert tracked <= {field.encode_name for field in msgspec.structs.fields(problem.Problem) if field.required}


def test_the_code_hash_covers_what_dvc_watches():
    """The code in a fingerprint is the code on which the stage `train` depends."""
    stages = msgspec.yaml.decode((ROOT / "dvc.yaml").read_bytes())["stages"]
    assert [place for place in stages["train"]["deps"] if "here" not in place] == list(CODE)


# Modules that the training imports and that shape no model, and what they do.
SHAPELESS = {
    "lab/env_file.py": "reads .env",
    "lab/errors.py": "words a fault",
    "lab/hosts.py": "reads host names",
    "lab/setting_types.py": "checks settings",
    "lab/settings.py": "finds files and services",
    "lab/strict_yaml.py": "parses params.yaml, whose values the fingerprint covers",
    "trainer/cluster.py": "chooses where the fits run",
    "trainer/lineage.py": "computes the fingerprint",
    "trainer/results.py": "keeps results in files",
    "trainer/fit_warnings.py": "collects warnings",
    "trainer/fit_progress.py": "prints the progress",
}


def imported(module: str) -> set[str]:
    """The lab's modules that a module imports, anywhere in it, as paths."""
    paths = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        paths |= {f"{name.replace('.', '/')}.py" for name in names}
    return {path for path in paths if path.startswith(("lab/", "trainer/")) and (ROOT / path).is_file()}


def test_the_code_hash_covers_all_that_shapes_a_model():
    """Every module that the training imports is in the hash, or is listed as one that shapes no model."""
    reached, waiting = {"trainer/ingest.py", "trainer/train.py"}, ["trainer/ingest.py", "trainer/train.py"]
    while waiting:
        further = imported(waiting.pop()) - reached
        reached |= further
        waiting += further
    assert reached - set(SHAPELESS) == set(CODE)
    assert set(SHAPELESS) <= reached


def test_the_fingerprint_covers_the_versions_of_what_shapes_a_model(monkeypatch):
    """Another version of scikit-learn changes the fingerprint; another floor of the gate does not."""
    definition = problem.load(ROOT / "params.yaml")
    candidate = next(iter(definition.candidates.values()))
    before = lineage.fingerprint(definition, candidate, "md5")
    gate = msgspec.structs.replace(definition, choice=problem.Choice(alpha=0.01, floors={"recall": 0.5}))
    assert lineage.fingerprint(gate, candidate, "md5") == before
    monkeypatch.setattr(lineage, "version", lambda name: "9.9" if name == "scikit-learn" else version(name))
    assert lineage.fingerprint(definition, candidate, "md5") != before
    assert "joblib" in lineage.shaping_packages("joblib.parallel.Parallel")


def test_a_port_in_use_names_its_holder(monkeypatch):
    """The message names the program that holds the port, and a remedy."""
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        values = settings.load({"API_PORT": str(port), "S3_ACCESS_KEY": "aaa", "S3_SECRET_KEY": "bbbbbbbb"})
        with pytest.raises(LabError, match=rf"port {port} \(API_PORT\) is in use by .*pid") as error:
            preflight.check_ports(values, SERVICES)
        assert "make up API_PORT=" in error.value.remedy


def test_no_git_says_to_install_it(monkeypatch):
    """Without git nothing is started."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="git is not installed"):
        preflight.check_git()


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 10_000, b'{"schema_version": 1}', b"\xff"])
def test_what_is_no_card_is_refused(text):
    """Only a complete card is accepted."""
    with pytest.raises(LabError, match="not valid"):
        card.decode(text)


def test_a_full_disk_says_so(tmp_path):
    """A write on a full disk ends a command with one message."""
    shutil.copytree(ROOT / "data" / "source", tmp_path / "data" / "source")
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS)
    (tmp_path / "data" / "dataset.csv").symlink_to("/dev/full")
    process = subprocess.run(
        [sys.executable, "-m", "trainer", "ingest", "--params", params], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert "the disk is full" in process.stderr
    assert "free some space" in process.stderr
    assert "Traceback" not in process.stderr


def test_too_little_room_is_said_before_anything_starts(monkeypatch):
    """The message about disk or memory has the available and the needed amount."""
    monkeypatch.setattr(preflight, "DISK_MB", 10**9)
    with pytest.raises(LabError, match="MB are free on the disk"):
        preflight._check_room()
    monkeypatch.setattr(preflight, "DISK_MB", 0)
    monkeypatch.setattr(preflight, "MEMORY_MB", 10**9)
    with pytest.raises(LabError, match=r"MB of memory are available.*pid"):
        preflight._check_room()


def test_a_read_only_folder_says_so(tmp_path, monkeypatch, capsys):
    """The message has the folder and a remedy."""
    tmp_path.chmod(0o555)
    monkeypatch.setattr(preflight, "STATE", tmp_path / ".lab")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)  # root may write anywhere
    try:
        with pytest.raises(SystemExit) as end:
            errors.run(preflight._check_folder)
    finally:
        if root:
            os.seteuid(0)
    assert end.value.code == 1
    assert "make the folder writable" in capsys.readouterr().err
