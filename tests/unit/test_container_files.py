"""compose.yaml and the Dockerfiles by themselves: linters, and what the stand-ins replace."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from lab.settings import ROOT


def lint(tool: str, *words: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_passes():
    """On every Dockerfile."""
    listed = ["git", "ls-files", "-co", "--exclude-standard", "*Dockerfile"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(files) >= 8
    lint("hadolint", *files)


def test_dclint_passes():
    """On compose.yaml; .dclintrc.yaml says what is not asked of it, and why."""
    lint("dclint", "compose.yaml")


def test_the_stand_ins_replace_what_is_pulled_and_nothing_else():
    """What compose.yaml pulls outside of the Elastic part."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    text = (ROOT / "tests" / "docker" / "stand-ins.yaml").read_text()
    stand_ins = yaml.safe_load(text.replace("!override", ""))["services"]
    pulled = {n for n, s in services.items() if "build" not in s and "elastic" not in s.get("profiles", [])}
    assert stand_ins.keys() == pulled
