"""A file of NAME=VALUE lines such as `.env`. Docker Compose reads the same values from it as the lab does."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from lab.errors import LabError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
# The parts of a line: name, value, then comment and line end. A quoted value may span several lines.
_LINE = re.compile(
    r"""(?P<name>\s*(?:export\s+)?[^=\s]+[^\S\r\n]*=[^\S\r\n]*)
        (?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\r\n]*?)
        (?P<rest>(?:[^\S\r\n]+\#[^\r\n]*)?\s*)""",
    re.DOTALL | re.VERBOSE,
)


def read(path: Path) -> dict[str, str]:
    """The values in the file, or no values when there is no file. Raises LabError when the file is not UTF-8."""
    return {line.key: _value(line) for line in _lines(path) if line.key and line.value is not None}


def write(path: Path, changes: Mapping[str, str], heading: str) -> None:
    """Write the changes to the file, and keep every other line and comment. Only its owner may read the file.

    `heading` is the comment at the top of a new file. Raises LabError for a value that cannot be written to a line.
    """
    lines, remainder = [] if path.is_file() else [f"# {heading}\n"], dict(changes)
    for line in _lines(path):
        text = line.original.string
        if line.key not in changes:
            lines.append(text)
        elif line.key in remainder:  # the last line of a name wins, so further lines of the same name are dropped
            lines.append(_replaced(text, line.key, remainder.pop(line.key)))
    if lines and not lines[-1].endswith("\n"):
        lines.append("\n")
    _replace(path, "".join([*lines, text_of(remainder)]))


def text_of(values: Mapping[str, str]) -> str:
    """The lines that hold these values."""
    return "".join(f"{name}={_quoted(name, value)}\n" for name, value in values.items())


def _lines(path: Path) -> Iterator[Binding]:
    if not path.is_file():
        return iter(())
    try:
        return parse_stream(io.StringIO(path.read_bytes().decode(), newline=""))
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not UTF-8: {error}", "correct or remove the line") from error


def _value(line: Binding) -> str:
    value = line.value or ""
    quoted = line.original.string.partition("=")[2].lstrip().startswith('"')
    # Compose knows the escape \$ and python-dotenv does not.
    return value.replace("\\$", "$") if quoted else value


def _quoted(name: str, value: str) -> str:
    """The value, quoted in such a way that Compose and python-dotenv read the same text."""
    if not value.isprintable():
        raise LabError(f"{name} holds a character that cannot be printed, such as a line break", "choose another value")
    if _PLAIN.fullmatch(value):
        return value
    # Both read text in single quotes literally, but both unescape \', and only python-dotenv unescapes \\.
    if re.search(r"\\(\\|'|$)", value):
        return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'
    return "'" + value.replace("'", "\\'") + "'"


def _replaced(line: str, name: str, value: str) -> str:
    """The line with another value and the same comment."""
    if not (match := _LINE.fullmatch(line)):
        return text_of({name: value})
    return match["name"] + _quoted(name, value) + match["rest"]


def _replace(path: Path, text: str) -> None:
    """Replace the file atomically. mkstemp creates the new file with read permission for its owner alone."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
