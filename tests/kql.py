"""A reader of Kibana's query language, as far as the lab's panels use it, which gives the condition in SQL."""

from __future__ import annotations

import re

TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|>=|<=|[:<>()*]|[^\s:<>()*"]+)')


class UnknownQueryError(Exception):
    """The query has a part that this reader does not know."""


def sql(query: str) -> str:
    """The condition of a query over columns with the fields' names; an empty query lets everything through."""
    if not query.strip():
        return "true"
    reader = _Reader(query)
    condition = reader.either()
    if reader.tokens:
        raise UnknownQueryError(f"{reader.tokens[0]!r} in {query!r}")
    return condition


def name(field: str) -> str:
    """A field's name as an identifier of SQL."""
    return '"' + field.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


class _Reader:
    def __init__(self, query: str) -> None:
        self.tokens = TOKEN.findall(query)
        if re.sub(r"\s", "", "".join(self.tokens)) != re.sub(r"\s", "", query):
            raise UnknownQueryError(query)

    def take(self) -> str:
        if not self.tokens:
            raise UnknownQueryError("the query ends early")
        return str(self.tokens.pop(0))

    def word(self, *words: str) -> bool:
        if self.tokens and self.tokens[0].lower() in words:
            self.tokens.pop(0)
            return True
        return False

    def either(self) -> str:
        parts = [self.both()]
        while self.word("or"):
            parts.append(self.both())
        return f"({' OR '.join(parts)})"

    def both(self) -> str:
        parts = [self.one()]
        while self.word("and"):
            parts.append(self.one())
        return f"({' AND '.join(parts)})"

    def one(self) -> str:
        if self.word("not"):
            return f"NOT coalesce({self.one()}, false)"
        if self.word("("):
            condition = self.either()
            if not self.word(")"):
                raise UnknownQueryError("a bracket is not closed")
            return condition
        field, operator = name(self.take().strip('"')), self.take()
        value = self.take()
        if operator in ("<", ">", "<=", ">="):
            return f"({field} {operator} {float(value)})"
        if operator != ":" or value in (":", "(", ")"):
            raise UnknownQueryError(f"{operator!r}")
        if value == "*":
            return f"({field} IS NOT NULL)"
        return f"(CAST({field} AS VARCHAR) = {text(value.strip(chr(34)))})"
