"""What both engines stand on: the environment of the lab's processes, and which engine made this clone's state."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from lab import problem
from lab.settings import ROOT, SETTINGS, STATE, Settings

BIN = Path(sysconfig.get_path("scripts"))
MADE_BY = STATE / "engine"
REPRODUCE = ["-m", "trainer", "reproduce", "--version"]


def remember(name: str) -> None:
    """Note which engine makes the state from now on, so that every later command finds it."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    MADE_BY.write_text(name)


def made_by() -> str:
    """The name of that engine; nothing where there is no state."""
    try:
        return MADE_BY.read_text().strip()
    except OSError:
        # A state from before there were two.
        return "embedded" if (STATE / "mlflow").exists() else ""


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of the lab: this one's, the settings, and this clone's programs."""
    stated = problem.load(settings.params)
    return {
        **os.environ,
        **{s.name: settings.values[s.name] for s in SETTINGS},
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # ONNX Runtime would report to its makers.
        "ORT_DISABLE_TELEMETRY": "1",
        "LAB_STATE": str(STATE),
        "LAB_BIN": str(BIN),
        "LAB_ROOT": str(ROOT),
        "S3_URL": settings.s3_url,
        "MLFLOW_URL": settings.mlflow_url,
        "API_URL": settings.api_url,
        "MODEL_NAME": stated.name,
    }
