"""The lab and Docker Compose read from `.env` the values that were written, and other lines stay."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab import env_file
from lab.errors import LabError
from lab.settings import ROOT

# Characters that some reader of such files takes for its own, more often than others.
SPECIAL = st.sampled_from("'\"\\$#{}()=%` abnt0")
VALUES = st.text(SPECIAL | st.characters(codec="utf-8"), max_size=12).filter(str.isprintable)
# Each was lost or altered before.
KNOWN = {"A": "abc #1", "B": "'q'", "C": '"q"', "D": "a$b", "E": "${HOME}", "F": " x ", "G": "\\", "H": "\\'$", "I": ""}
OF_THE_USER = """\
# mine
export OTHER='kept as it is'   # why

API_PORT=8010 # the port of the API
not a line at all
API_KEY="old # key" # secret
TWICE=1
TWICE=2
"""
in_any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.dictionaries(st.sampled_from("ABCDEFGHIJ"), VALUES))
@example(KNOWN)
@in_any_folder
def test_what_is_written_is_read(tmp_path, values):
    """Any printable value is read back, from a new line and from a replaced one."""
    path = tmp_path / ".env"
    env_file.write(path, dict.fromkeys("ABCDEFGHIJ", "before #1"), "heading")
    env_file.write(path, values, "heading")
    assert env_file.read(path) == dict.fromkeys("ABCDEFGHIJ", "before #1") | values


@pytest.mark.skipif(not shutil.which("docker"), reason="docker compose is not installed")
@given(st.lists(VALUES, min_size=200, max_size=300))
@example([*KNOWN.values()])
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_compose_reads_the_same(tmp_path, values):
    """`docker compose --env-file` reads every value unchanged."""
    variables = {f"V{number}": value for number, value in enumerate(values)}
    lines = "".join(f"      {name}: ${{{name}}}\n" for name in variables)
    (tmp_path / "compose.yaml").write_text(f"services:\n  x:\n    image: x\n    environment:\n{lines}")
    (tmp_path / "x.env").unlink(missing_ok=True)
    env_file.write(tmp_path / "x.env", variables, "heading")
    words = ["docker", "compose", "--env-file", "x.env", "config", "--format", "json"]
    process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if "is not a docker command" in process.stderr:
        pytest.skip("docker compose is not installed")
    assert process.returncode == 0, process.stderr
    read = json.loads(process.stdout)["services"]["x"]["environment"]
    assert {name: value.replace("$$", "$") for name, value in read.items()} == variables


def test_what_the_user_wrote_stays(tmp_path):
    """Comments, other lines and the order stay, and each name stands once, with its comment."""
    path = tmp_path / ".env"
    path.write_text(OF_THE_USER)
    env_file.write(path, {"API_PORT": "8020", "API_KEY": "new #1", "TWICE": "3", "NEW": "4"}, "heading")
    assert path.read_text() == OF_THE_USER.replace("8010", "8020").replace('"old # key"', "'new #1'").replace(
        "TWICE=1\nTWICE=2\n", "TWICE=3\nNEW=4\n"
    )


def test_the_file_is_whole_and_its_owners(tmp_path):
    """The file has mode 600 from the first write on, and a failed write changes nothing."""
    path = tmp_path / ".env"
    env_file.write(path, {"A": "1"}, "heading")
    path.chmod(0o644)
    env_file.write(path, {"A": "2"}, "heading")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for value in ("two\nlines", "nul\0", "esc\x1b", "\ud800"):
        with pytest.raises(LabError, match="A holds a character"):
            env_file.write(path, {"A": value}, "heading")
    assert path.read_text() == "# heading\nA=2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_text_says_so(tmp_path):
    """A file in a wrong encoding is one message."""
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(LabError, match="not UTF-8"):
        env_file.read(tmp_path / ".env")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Run `make down NAME=value …` with a python that prints its environment."""
    venv: Path = tmp_path_factory.mktemp("venv")
    (venv / "bin").mkdir()
    (venv / "bin" / "uv").touch()
    (venv / ".lab-1").touch()
    program = venv / "bin" / "python"
    program.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps(dict(os.environ)))\n")
    program.chmod(0o755)

    def run(*words: str, **env: str) -> dict[str, str]:
        command = ["make", "--no-print-directory", "down", f"VENV={venv}", *words]
        env = {"PATH": "/usr/bin:/bin", **env}
        process = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return run


@given(VALUES)
@example("$(shell touch /tmp/x)$HOME#1 '\"\\")
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_make_hands_over_what_was_typed(make, value):
    """A value on make's command line reaches the lab unchanged, except for leading spaces."""
    output = make(f"API_KEY={value}", "S3_BUCKET=", API_PORT="9")
    assert output["API_KEY"] == value.lstrip()
    assert output["S3_BUCKET"] == ""
    assert {"API_KEY", "S3_BUCKET"} <= set(output["LAB_SETTINGS"].split())
    assert "API_PORT" not in output["LAB_SETTINGS"].split()
