"""supervisord reads services/supervisord.conf correctly with the lab's settings, in any folder."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from lab import settings
from lab.errors import LabError
from lab.settings import ROOT
from launcher import preflight, supervisor, supervisord


def programs(folder: Path, **values: str) -> dict:
    """The programs of a lab in `folder`, as supervisord reads them."""
    for name in ("run", "log", "seaweedfs"):
        (folder / ".lab" / name).mkdir(parents=True, exist_ok=True)
    fresh = settings.load(settings.draw(settings.load({})) | values)
    places = {"LAB_STATE": str(folder / ".lab"), "LAB_ROOT": str(folder), "LAB_BIN": str(folder / ".venv" / "bin")}
    supervisord.VALUES.clear()
    supervisord.VALUES.update(supervisor._values(fresh) | places)
    options = supervisord.Options()
    options.realize(["-c", str(ROOT / "services" / "supervisord.conf"), "-n"])
    return {program.name: program for group in options.process_group_configs for program in group.process_configs}


def refusal() -> str:
    """The message of `make up` against the folder; empty when there is none."""
    try:
        preflight._check_folder()
    except LabError as error:
        return error.message
    return ""


@pytest.mark.parametrize("character", sorted(set(string.punctuation) - {"/"} | {" "}))
def test_a_folder_is_what_supervisord_takes_it_for(tmp_path, monkeypatch, character):
    """supervisord reads any name of a folder correctly, or `make up` refuses the folder."""
    folder = tmp_path / f"a {character}b"
    monkeypatch.setattr(preflight, "ROOT", folder)
    monkeypatch.setattr(preflight, "STATE", tmp_path / ".lab")
    if message := refusal():
        assert f"has {character} in it" in message
        return
    configuration = programs(folder)
    assert configuration["api"].stdout_logfile == str(folder / ".lab" / "log" / "api.log")
    assert configuration["api"].environment["EVENTS_DIR"] == str(folder / ".lab" / "events")
    assert configuration["s3"].command.startswith(f'"{folder}/.venv/bin/weed" ')


@pytest.mark.parametrize(
    "key", ["abc #1", "a;b ;c", "100%", "%(ENV_S3_SECRET_KEY)s", "it's", '"q"', 'a,B="c"', "<S3_BUCKET>'"]
)
def test_a_key_reaches_its_services_as_it_is(tmp_path, key):
    """A key reaches its services unchanged, with no part of another setting."""
    configuration = programs(tmp_path, API_KEY=key)
    assert {configuration[name].environment["API_KEY"] for name in ("api", "dashboard")} == {key}
    assert configuration["api"].environment.keys() == programs(tmp_path)["api"].environment.keys()
