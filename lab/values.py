"""Check the values of the settings before anything is started, stopped or written to `.env`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lab import hosts
from lab.errors import LabError
from lab.settings import SETTINGS, Settings

_BUCKET = r"[a-z0-9]([a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]"
# Other characters have a meaning of their own in DVC's configuration or in a URL.
_KEY = r"[A-Za-z0-9/+=._~-]"
# Setting: its pattern, and the pattern in words.
_PATTERNS = {
    "S3_BUCKET": (
        rf"(?!(\d+\.){{3}}\d+$|xn--){_BUCKET}",
        "3 to 63 lower-case letters, digits, hyphens and dots, a letter or digit at both ends, and no IP address",
    ),
    "S3_ACCESS_KEY": (rf"{_KEY}{{3,}}", "3 or more letters, digits or characters of /+=._~-"),
    "S3_SECRET_KEY": (rf"{_KEY}{{8,}}", "8 or more letters, digits or characters of /+=._~-"),
    "AWS_EMULATOR_KEY_ID": (r"(?!\d{12}$)[A-Za-z0-9]{16,128}", "16 to 128 letters and digits"),
    "AWS_EMULATOR_SECRET_KEY": (r"\S{16,}", "16 or more characters without a space"),
    "POSTGRES_PASSWORD": (r"[A-Za-z0-9._~-]+", "letters, digits or characters of ._~-"),
    "API_KEY": (r"([!-~]([ -~]*[!-~])?)?", "ASCII, with no space at either end: it is sent in a header"),
    "ENVIRONMENT": (r"laptop|staging|production", "laptop, staging or production"),
    "COMPOSE_PROJECT_NAME": (r"([a-z0-9][a-z0-9_-]*)?", "lower-case letters, digits, _ and -, a letter or digit first"),
    "KIBANA_ENCRYPTION_KEY": (r".{32,}", "32 or more characters"),
}
_URLS = ("S3_ENDPOINT_URL", "MLFLOW_URL", "ELASTIC_APM_SERVER_URL")


def check(settings: Settings) -> None:
    """Raise LabError for the first setting that has an unusable value."""
    for setting in SETTINGS:
        value = settings.values[setting.name]
        if not value.isprintable():
            raise _refused(setting.name, "printable characters without a line break")
        if setting.port:
            settings.port(setting.name)
    settings.number("LITE", 0, 1)
    settings.number("AWS", 0, 1)
    settings.number("API_WORKERS", 1, 64)
    settings.number("START_SECONDS", 1, 3600)
    settings.number("EVENTS_DAYS", 1, 36_500)
    settings.number("EVENTS_MB", 100, 10_000_000)  # a single file may have 64 MB
    hosts.allowed_hosts(settings["ALLOWED_HOSTS"])
    for name, (pattern, words) in _PATTERNS.items():
        if not re.fullmatch(pattern, settings.values[name]):
            raise _refused(name, words)
    for name in _URLS:
        if settings[name] and not _is_url(settings[name]):
            raise _refused(name, "an address such as http://127.0.0.1:9000")


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _refused(name: str, words: str) -> LabError:
    # The value is not shown: it may be a secret.
    return LabError(
        f"the value of {name} cannot be used; it must be {words}", f"make up {name}=…, or correct it in .env"
    )
