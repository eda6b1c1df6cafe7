"""Read YAML as DVC does, in version 1.2: `1e5` is a number and `no` is text. A repeated key is an error."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from lab.errors import LabError

# Limits of a file after its aliases are expanded, because a small file can expand without end.
MAX_DEPTH = 20
MAX_NODES = 1_000_000
_WORDS = "tag:yaml.org,2002:"
_STR, _MERGE = _WORDS + "str", _WORDS + "merge"


class _Fault(yaml.MarkedYAMLError):
    """Valid YAML that breaks a rule of this module."""

    def __init__(self, place: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(problem=message, problem_mark=place.start_mark)  # type: ignore[arg-type]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader for YAML 1.2. PyYAML's own loaders read 1.1: there `1e5` is text, `010` is 8 and `no` is false."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes every text, so that no reader takes it for a number."""


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    digits = loader.construct_scalar(node).replace("_", "").lower()
    sign, digits = (-1 if digits.startswith("-") else 1), digits.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2], 10)
    try:
        return sign * int(digits[2:] if base != 10 else digits, base)
    except ValueError as error:
        raise _Fault(node, "this number has no digits, or more than can be read") from error


def _finite(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        raise _Fault(
            node,
            f"{node.value} is not a finite number; a bound is the least or the greatest value that can really occur",
        )
    return value


for _kind, _pattern, _first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
]:
    _Loader.add_implicit_resolver(_WORDS + _kind, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor(_WORDS + "int", _number)
_Loader.add_constructor(_WORDS + "float", _finite)
_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_STR, text, style='"'))


def decode(data: bytes | str, name: str) -> Any:
    """The value of a YAML text: mappings with text keys, lists, text, finite numbers, bool and None.

    Raises LabError that names the file and the line.
    """
    data = data.encode() if isinstance(data, str) else data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabError(f"{name}, line {line}: this is not UTF-8", "save the file as UTF-8") from error
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_nodes(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}, line {mark.line + 1}" if mark else name
        if isinstance(error, _Fault):
            raise LabError(f"{place}: {error.problem}", "correct it there") from error
        raise LabError(
            f"{place}: this is not YAML: {error.problem or error.context}",
            "correct it in the file; put quotes around a text that contains a colon, a # or a bracket",
        ) from error
    except yaml.YAMLError as error:
        # A character that YAML does not allow; the error has its index in the text.
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise LabError(f"{name}, line {line}: there is a character that YAML does not allow", "remove it") from error


def encode(value: Any) -> bytes:
    """The YAML text of a value, which YAML 1.1 and 1.2 read as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


def _check_events(text: str) -> None:
    """Refuse tags, and deep nesting, on which the C parser would recurse and crash when it builds nodes."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _Fault(event, f"this is nested deeper than {MAX_DEPTH} levels")
        if tag := getattr(event, "tag", None):
            raise _Fault(event, f"tags are not allowed, and this value has the tag {tag.replace(_WORDS, '!!')}")


def _check_nodes(root: yaml.Node) -> None:
    """Refuse repeated keys, keys that are not text, and aliases that expand without end or beyond the limits."""
    queue, count = [(root, 1)], 0
    while queue:
        node, depth = queue.pop()
        count += 1
        if depth > MAX_DEPTH + 1 or count > MAX_NODES:
            raise _Fault(node, f"the aliases (*) expand to more than {MAX_DEPTH} levels or {MAX_NODES} values")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            queue += [(value, depth + 1) for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            queue += [(value, depth + 1) for value in node.value]


def _check_keys(mapping: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_STR, _MERGE):
            text = key.value if isinstance(key, yaml.ScalarNode) else "that is a list or a mapping"
            raise _Fault(key, f"the key {text} is not text; put it in quotes")
        line = key.start_mark.line + 1
        if key.value in lines:
            raise _Fault(key, f"{key.value} is given twice; it stands in line {lines[key.value]} already")
        lines[key.value] = line
