"""A reader of Logstash's configuration language, as far as a pipeline of ours uses it, after its published grammar."""

from __future__ import annotations

import re
from typing import Any

TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (
        => | == | != | =~ | !~ | <= | >= | [{}()\[\],!<>]
        | "(?:\\"|[^"])*" | '(?:\\'|[^'])*'
        | -?\d+(?:\.\d+)? | @?[A-Za-z_][\w.@]*
    )""",
    re.VERBOSE,
)
NAME = re.compile(r"[A-Za-z_]\w*$")
COMPARE = ("==", "!=", "=~", "!~", "<", ">", "<=", ">=", "in", "not")


def parse(text: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The plugins of each section with their settings, those under a condition too; raise SyntaxError."""
    reader, sections = _Reader(_tokens(text)), {}
    while reader.next:
        section = reader.take("input", "filter", "output")
        sections[section] = reader.block()
    return sections


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text):
        if not (match := TOKEN.match(text, place)):
            raise SyntaxError(f"unexpected {text[place : place + 20]!r}")
        found += [match[1]] if match[1] else []
        place = match.end()
    return found


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    @property
    def next(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def take(self, *wanted: str) -> str:
        token = self.next
        if token not in wanted if wanted else not NAME.match(token):
            raise SyntaxError(f"{token or 'the end'!r} where {' or '.join(wanted) or 'a name'} is due")
        return self._tokens.pop(0)

    def block(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        self.take("{")
        while self.next != "}":
            if (name := self.take()) == "if":
                found += self.branch()
            else:
                found.append((name, self.settings()))
        self.take("}")
        return found

    def branch(self) -> list[tuple[str, dict[str, Any]]]:
        self.condition()
        found = self.block()
        while self.next == "else":
            self.take("else")
            if self.next == "if":
                self.take("if")
                return found + self.branch()
            found += self.block()
        return found

    def settings(self) -> dict[str, Any]:
        found = {}
        self.take("{")
        while self.next != "}":
            name = self.string() if self.next.startswith(('"', "'")) else self.take()
            self.take("=>")
            found[name] = self.value()
        self.take("}")
        return found

    def value(self) -> Any:
        if self.next == "[":
            return self.array()
        if self.next == "{":
            return self.settings()
        if not re.match(r"[\"'\w-]", self.next):
            raise SyntaxError(f"{self.next or 'the end'!r} where a value is due")
        return self.string()

    def array(self) -> list[Any]:
        found: list[Any] = []
        self.take("[")
        while self.next != "]":
            found.append(self.value())
            if self.next != "]":
                self.take(",")
        self.take("]")
        return found

    def string(self) -> str:
        return self._tokens.pop(0).strip("\"'")

    def condition(self) -> None:
        self.operand()
        if self.next in COMPARE:
            if self.take(*COMPARE) == "not":
                self.take("in")
            self.operand()
        if self.next in ("and", "or", "xor", "nand"):
            self.take(self.next)
            self.condition()

    def operand(self) -> None:
        if self.next == "(":
            self.take("(")
            self.condition()
            self.take(")")
        elif self.next == "!":
            self.take("!")
            self.operand()
        elif self.next == "[" and self._tokens[1:2] and self._tokens[1][0] not in "\"'":
            while self.next == "[":
                self.field()
        else:
            self.value()

    def field(self) -> None:
        self.take("[")
        if not re.match(r"@?[A-Za-z_]", self.next):
            raise SyntaxError(f"{self.next or 'the end'!r} where a field is due")
        self._tokens.pop(0)
        self.take("]")
