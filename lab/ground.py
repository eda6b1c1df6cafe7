"""What both engines stand on: the environment of the lab's processes, and which engine made this clone's state."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.settings import NAMES, ROOT, STATE, Settings

BIN = Path(sysconfig.get_path("scripts"))
MADE_BY = STATE / "engine"
# DVC reads this file instead of the user's own ~/.aws/config, which may name another S3 endpoint.
AWS_CONFIG = ROOT / ".dvc" / "aws.config"
REPRODUCE = ["-m", "trainer", "reproduce", "--version"]
CHECK = ["-m", "trainer", "check"]
# The variables of the caller's shell that a process of the lab inherits: user, folders, language, certificates,
# libraries, caches. Others (profiles, tokens, proxies) would change what the lab does.
MACHINE = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "DVC_SITE_CACHE_DIR"),
    }
)


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


def refused_table(settings: Settings, said: str) -> LabError:
    """The error for a table that the trainer's check refused; `said` is the output of that check."""
    # Compose prints lines of its own before the error.
    reason = said[max(said.find("error: "), 0) :].removeprefix("error: ").strip()
    return LabError(f"{settings['PARAMS']} cannot be trained on; nothing was changed. The reason:\n{reason[:4_000]}")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of the lab: the inherited variables in MACHINE, and these settings."""
    machine = {name: value for name, value in os.environ.items() if name in MACHINE or name.startswith("LC_")}
    return {
        **machine,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # ONNX Runtime would report to its makers.
        "ORT_DISABLE_TELEMETRY": "1",
        "AWS_CONFIG_FILE": str(AWS_CONFIG),
        "AWS_SHARED_CREDENTIALS_FILE": str(AWS_CONFIG),
        **settings,
        **({NAMES: " ".join(settings)} if settings else {}),
    }
