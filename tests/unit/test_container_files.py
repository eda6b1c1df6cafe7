"""compose.yaml and the Dockerfiles: linters, the files that they name, and the images that stand-ins replace."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml

from lab.settings import ROOT

# Makes Python find no package of these names.
ABSENT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def lint(tool: str, *words: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    process = subprocess.run([tool, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr


def test_a_mounted_script_exists():
    """Every path below /services in a command of compose.yaml is a file of this repository."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    words = [str(word) for service in services for word in service.get("command") or []]
    paths = [word for word in words if word.startswith("/services/")]
    assert len(paths) >= 2
    assert [path for path in paths if not (ROOT / path[1:]).is_file()] == []


def test_hadolint_passes():
    """hadolint finds nothing in any Dockerfile."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*Dockerfile"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(files) >= 8
    lint("hadolint", *files)


def test_dclint_passes():
    """dclint finds nothing in compose.yaml; .dclintrc.yaml has the exceptions and their reasons."""
    lint("dclint", "compose.yaml")


def test_the_stand_ins_replace_what_is_pulled_and_nothing_else():
    """Stand-ins replace exactly the images that compose.yaml pulls outside of the Elastic part."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    text = (ROOT / "tests" / "docker" / "stand-ins.yaml").read_text()
    stand_ins = yaml.safe_load(text.replace("!override", ""))["services"]
    pulled = {n for n, s in services.items() if "build" not in s and "elastic" not in s.get("profiles", [])}
    assert stand_ins.keys() == pulled


def test_only_the_trainers_image_holds_the_launcher():
    """Only the trainer's image has launcher/, which runs its pipeline; other build contexts exclude it."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*Dockerfile"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = {file: (ROOT / file).read_text() + _ignore(file) for file in files if not file.startswith("tests/")}
    holders = {file for file, text in texts.items() if re.search(r"^(COPY .*|!)launcher\b", text, re.M)}
    assert holders == {"trainer/Dockerfile"}
    for file in texts.keys() - holders:
        assert not re.search(r"^COPY (--\S+ )*(\.|\*|\./) ", texts[file], re.M), f"{file} copies the whole context"
        assert _ignore(file).startswith("*\n"), f"{file}: its build context is not empty by default"


def _ignore(file: str) -> str:
    return (ROOT / f"{file}.dockerignore").read_text()


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("api", "api.server, api.workers, api.embed_model, api.apm, lab.trial, lab.operators"),
        ("dashboard", "lab.hosts, lab.http, dashboard.client, streamlit"),
        ("aws", "localstack.guard, localstack.confine"),
    ],
)
def test_an_image_has_what_its_modules_import(image, modules):
    """The modules of an image load with the packages of its lock file only."""
    text = (ROOT / "requirements" / f"{image}.txt").read_text()
    names = {_plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.M)}
    owners = packages_distributions().items()
    absent = [name for name, distributions in owners if not names & {_plain(owner) for owner in distributions}]
    code = f"{ABSENT.format(names=absent)}\nimport {modules}"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
