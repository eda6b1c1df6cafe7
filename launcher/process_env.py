"""The environment of the lab's processes, the same with both engines."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from lab.settings import NAMES, ROOT

BIN = Path(sysconfig.get_path("scripts"))
# DVC reads this file instead of the user's own ~/.aws/config, which may name another S3 endpoint.
AWS_CONFIG = ROOT / ".dvc" / "aws.config"
# The variables of the caller's shell that a process of the lab inherits: user, folders, language, certificates,
# libraries, caches. Others (profiles, tokens, proxies) would change what the lab does.
MACHINE = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "DVC_SITE_CACHE_DIR"),
    }
)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of the lab: the inherited variables in MACHINE, and these settings."""
    machine = {name: value for name, value in os.environ.items() if name in MACHINE or name.startswith("LC_")}
    return {
        **machine,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # Without this, ONNX Runtime sends telemetry to its makers.
        "ORT_DISABLE_TELEMETRY": "1",
        "AWS_CONFIG_FILE": str(AWS_CONFIG),
        "AWS_SHARED_CREDENTIALS_FILE": str(AWS_CONFIG),
        **settings,
        **({NAMES: " ".join(settings)} if settings else {}),
    }
