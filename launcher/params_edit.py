"""Change a params.yaml as text, so that its comments and its layout stay."""

from __future__ import annotations

import json
import re

import msgspec
import yaml

from lab import problem
from lab.errors import LabError
from lab.problem import Collected, Problem


def with_collected(text: str, collected: Collected, until: str) -> str:
    """The text of a params.yaml with these collected records and `data.until`.

    The new text is read again and compared with the intended problem; raises LabError when the two differ.
    """
    before = problem.parse(text)
    goal = msgspec.structs.replace(
        before,
        source=msgspec.structs.replace(before.source, collected=collected),
        data=msgspec.structs.replace(before.data, until=until),
    )
    edits = [] if before.source.collected == collected else [_collected_edit(text, collected)]
    if before.data.until != until:
        edits.append(_until_edit(text, until))
    result = text
    for start, end, new in sorted(edits, reverse=True):
        result = result[:start] + new + result[end:]
    if _parsed(result) != goal:
        raise LabError(
            "params.yaml is written in a form that `make collect` cannot change",
            "write `source` and `data` as plain blocks without anchors, as in the lab's own params.yaml",
        )
    return result


# An edit: the new text takes the place of the text from `start` to `end`.
Edit = tuple[int, int, str]


def _collected_edit(text: str, collected: Collected) -> Edit:
    source = _value(_root(text), "source")
    entry = f"collected: {{path: {_scalar(collected.path)}, md5: {json.dumps(collected.md5)}}}"
    if old := _entry(source, "collected"):
        return old[0].start_mark.index, _end(old[1]), entry
    if getattr(source, "flow_style", False):
        start = source.start_mark.index + 1
        return start, start, f"{entry}, "
    key, path = _entry(source, "path") or (source, source)
    end = text.find("\n", path.end_mark.index)
    newline = "\r\n" if "\r\n" in text else "\n"
    if end < 0:
        return len(text), len(text), f"{newline}{' ' * key.start_mark.column}{entry}{newline}"
    return end + 1, end + 1, f"{' ' * key.start_mark.column}{entry}{newline}"


def _until_edit(text: str, until: str) -> Edit:
    node = _value(_value(_root(text), "data"), "until")
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return node.start_mark.index, node.end_mark.index, until if plain else json.dumps(until)


def _end(node: yaml.Node) -> int:
    """The index after a value. The mark of a block is after the line ends and comments that follow it."""
    end = node.end_mark.index
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        end = max(value.end_mark.index for pair in node.value for value in pair)
    return int(end)


def _root(text: str) -> yaml.Node:
    return yaml.compose(text, Loader=yaml.SafeLoader) or yaml.MappingNode("", [])


def _value(node: yaml.Node, name: str) -> yaml.Node:
    entry = _entry(node, name)
    return entry[1] if entry else node


def _entry(node: yaml.Node, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == name), None)


def _scalar(text: str) -> str:
    """A text in YAML, with quotes unless it is plain."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) else json.dumps(text, ensure_ascii=False)


def _parsed(text: str) -> Problem | None:
    try:
        return problem.parse(text)
    except LabError:
        return None
