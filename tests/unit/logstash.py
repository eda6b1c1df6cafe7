"""A reader of Logstash's configuration language, as far as a pipeline of ours uses it, after its published grammar.

It refuses what that grammar refuses. PyPI's logstash-pipeline-parser does not: it takes ["a" "b"] for an array, and two
settings with nothing between them.
"""

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
    while reader.next or not sections:
        section = reader.take("input", "filter", "output")
        sections[section] = reader.block()
    return sections


class _Token(str):
    """A token; `gap` is what stands between it and the one before: white space, comments."""

    gap = ""


def _tokens(text: str) -> list[_Token]:
    result: list[_Token] = []
    place = end = 0
    while place < len(text):
        if not (match := TOKEN.match(text, place)):
            raise SyntaxError(f"unexpected {text[place : place + 20]!r}")
        place = match.end()
        if match[1]:
            result.append(_Token(match[1]))
            result[-1].gap = text[end : match.start(1)]
            end = place
    return result


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens

    @property
    def next(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def take(self, *kinds: str) -> str:
        token = self.next
        if token not in kinds if kinds else not NAME.match(token):
            raise SyntaxError(f"{token or 'the end'!r} where {' or '.join(kinds) or 'a name'} is due")
        return self._tokens.pop(0)

    def block(self) -> list[tuple[str, dict[str, Any]]]:
        result = []
        self.take("{")
        while self.next != "}":
            if (name := self.take()) == "if":
                result += self.branch()
            else:
                result.append((name, self.settings(spaced=True)))
        self.take("}")
        return result

    def branch(self) -> list[tuple[str, dict[str, Any]]]:
        self.condition()
        block = self.block()
        while self.next == "else":
            self.take("else")
            if self.next == "if":
                self.take("if")
                return block + self.branch()
            block += self.block()
        return block

    def settings(self, spaced: bool = False) -> dict[str, Any]:
        """Of a plugin, which must be `spaced`, or the entries of a hash."""
        result: dict[str, Any] = {}
        self.take("{")
        while self.next != "}":
            if result and spaced and not self._tokens[0].gap[:1].isspace():
                raise SyntaxError(f"{self.next!r} where white space is due")
            name = self.string() if self.next.startswith(('"', "'")) else self.take()
            self.take("=>")
            result[name] = self.value()
        self.take("}")
        return result

    def value(self) -> Any:
        if self.next == "[":
            return self.array()
        if self.next == "{":
            return self.settings()
        if not re.match(r"[\"'\d-]|[A-Za-z_]\w+$", self.next):
            raise SyntaxError(f"{self.next or 'the end'!r} where a value is due")
        return self.string()

    def array(self) -> list[Any]:
        result: list[Any] = []
        self.take("[")
        while self.next != "]":
            if result:
                self.take(",")
            result.append(self.value())
        self.take("]")
        return result

    def string(self) -> str:
        return self._tokens.pop(0).strip("\"'")

    def condition(self) -> None:
        self.expression()
        if self.next in ("and", "or", "xor", "nand"):
            self.take(self.next)
            self.condition()

    def expression(self) -> None:
        negated = self.next == "!"
        if negated:
            self.take("!")
        if self.next == "(":
            self.take("(")
            self.condition()
            self.take(")")
        elif negated:
            self.selector()
        else:
            self.operand()
            if self.next in COMPARE:
                if self.take(*COMPARE) == "not":
                    self.take("in")
                self.operand()

    def operand(self) -> None:
        if self.next == "[" and self._tokens[1:2] and self._tokens[1][0] not in "\"'":
            self.selector()
        elif NAME.match(self.next):
            raise SyntaxError(f"{self.next!r} where a string, a number or a field is due")
        else:
            self.value()

    def selector(self) -> None:
        self.field()
        while self.next == "[" and not self._tokens[0].gap:
            self.field()

    def field(self) -> None:
        self.take("[")
        if not re.match(r"@?[A-Za-z_]", self.next):
            raise SyntaxError(f"{self.next or 'the end'!r} where a field is due")
        self._tokens.pop(0)
        self.take("]")
