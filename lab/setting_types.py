"""The types of settings. Each type limits the values for msgspec, and describes them in words for the user.

The member `extra` of a type may hold: `words`, the description; `secret` for a value that the lab draws and never
shows; `hidden` for a value that is not shown; and `check`, a function that raises LabError for a value that cannot be
used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, inspect

from lab import hosts
from lab.errors import LabError

# SeaweedFS listens for gRPC this far above each of its HTTP ports.
GRPC_OFFSET = 10_000


def about(text: str) -> Meta:
    """The help of a setting."""
    return Meta(description=text)


def _matching(pattern: str, words: str, **extra: Any) -> Meta:
    return Meta(pattern=rf"^(?:{pattern})\Z", extra={"words": words, **extra})


def _check_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if value and not usable:
        raise LabError("not an address")


# Other characters have a special meaning in DVC's configuration or in a URL.
_KEY = r"[A-Za-z0-9/+=._~-]"
_BUCKET = r"(?!(\d+\.){3}\d+$|xn--)[a-z0-9]([a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]"

Port = Annotated[int, Meta(ge=1, le=65_535)]
PairedPort = Annotated[int, Meta(ge=1, le=65_535 - GRPC_OFFSET)]
Workers = Annotated[int, Meta(ge=1, le=64)]
Days = Annotated[int, Meta(ge=1, le=36_500)]
# The least limit is above 64 MB, the size of a single event file.
Megabytes = Annotated[int, Meta(ge=100, le=10_000_000)]
Seconds = Annotated[int, Meta(ge=1, le=3600)]
Url = Annotated[str, Meta(extra={"words": "an address such as http://127.0.0.1:9000", "check": _check_url})]
HostNames = Annotated[str, Meta(extra={"words": "host names", "check": hosts.allowed_hosts})]
Bucket = Annotated[
    str,
    _matching(
        _BUCKET,
        "3 to 63 lower-case letters, digits, hyphens and dots, a letter or digit at both ends, and no IP address",
    ),
]
ProjectName = Annotated[
    str, _matching("([a-z0-9][a-z0-9_-]*)?", "lower-case letters, digits, _ and -, a letter or digit first")
]
Region = Annotated[str, _matching("[a-z]{2}(-[a-z]+)+-[0-9]{1,2}", "the name of a region such as eu-central-1")]
RoleArn = Annotated[
    str, _matching(r"(arn:aws[a-z-]*:iam::\d{12}:role/\S+)?", "a role's ARN: arn:aws:iam::123456789012:role/name")
]
ClientKey = Annotated[
    str,
    _matching("([!-~]([ -~]*[!-~])?)?", "ASCII, with no space at either end: it is sent in a header", hidden=True),
]
Licence = Annotated[str, Meta(extra={"hidden": True})]
Secret = Annotated[str, Meta(extra={"secret": True})]
AccessKey = Annotated[
    str, _matching(rf"{_KEY}{{3,}}", "3 or more letters, digits or characters of /+=._~-", secret=True)
]
SecretKey = Annotated[
    str, _matching(rf"{_KEY}{{8,}}", "8 or more letters, digits or characters of /+=._~-", secret=True)
]
EmulatorKeyId = Annotated[
    str, _matching(r"(?!\d{12}$)[A-Za-z0-9]{16,128}", "16 to 128 letters and digits", secret=True)
]
EmulatorSecret = Annotated[str, _matching(r"\S{16,}", "16 or more characters without a space", secret=True)]
UrlPassword = Annotated[str, _matching("[A-Za-z0-9._~-]+", "letters, digits or characters of ._~-", secret=True)]
EncryptionKey = Annotated[str, _matching(".{32,}", "32 or more characters", secret=True)]


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings. `default` is a text as in `.env`; it is None for a secret."""

    name: str
    type: Any
    default: str | None
    help: str
    words: str
    check: Callable[[str], object] | None = None
    hidden: bool = False

    @property
    def secret(self) -> bool:
        return self.default is None

    @property
    def port(self) -> bool:
        return self.name.endswith("_PORT")

    def parse(self, text: str) -> Any:
        """The value that the text stands for; raises LabError when the setting cannot have it."""
        try:
            if not text.isprintable():
                raise LabError("not printable")
            if self.secret and not text:
                return ""
            value = msgspec.convert(text, self.type, strict=False)
            if self.check:
                self.check(value)
        except (msgspec.ValidationError, LabError) as error:
            if isinstance(error, LabError) and error.remedy:  # the error of `check` has its own message
                raise
            template = (
                "the value of {0} cannot be used" if self.secret or self.hidden or "@" in text else "{0} is {1!r}"
            )
            raise LabError(
                f"{template.format(self.name, text)}; it must be {self.words}",
                f"give another value: make up {self.name}=…, or correct it in .env",
            ) from None
        return value


def setting(field: msgspec.structs.FieldInfo) -> Setting:
    """The row for a field of `lab.settings.Settings`."""
    info = inspect.type_info(field.type)
    extra: dict[str, Any] = {}
    help_text = ""
    while isinstance(info, inspect.Metadata):
        extra |= info.extra or {}
        help_text = (info.extra_json_schema or {}).get("description", help_text)
        info = info.type
    return Setting(
        name=field.encode_name,
        type=field.type,
        default=None if extra.get("secret") else text_of(field.default),
        help=help_text,
        words=extra.get("words") or _words(info),
        check=extra.get("check"),
        hidden=extra.get("hidden", False),
    )


def text_of(value: Any) -> str:
    """The text of a value as in `.env`."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.IntType():
            return f"a whole number from {info.ge} to {info.le}"
        case inspect.BoolType():
            return "0 or 1"
        case inspect.LiteralType():
            *first, last = info.values
            return f"{', '.join(map(str, first))} or {last}"
    return "printable characters without a line break"
