"""The requests of provision.py and elk_smoke.py to Elasticsearch, beside those of Elastic's own client, with types.

Every request is written down as a call of that client. The compiler holds the call to the client's types, Node.js makes
it, and what arrives must be what the scripts sent. What they ask of Kibana has no types.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

from lab.settings import ROOT, SETTINGS
from tests.unit.elastic import load_provision, load_smoke, stand_in

CLIENT = ROOT / "tests" / "elasticsearch"
MODULES = CLIENT / "node_modules"
CALLS = {
    r"GET /_cluster/health": "cluster.health",
    r"PUT /_security/user/(?P<username>[^/]+)/_password": "security.changePassword",
    r"PUT /_security/user/(?P<username>[^/]+)": "security.putUser",
    r"PUT /_security/role/(?P<name>[^/]+)": "security.putRole",
    r"PUT /_ilm/policy/(?P<name>[^/]+)": "ilm.putLifecycle",
    r"GET /_component_template/(?P<name>[^/]+)": "cluster.getComponentTemplate",
    r"PUT /_component_template/(?P<name>[^/]+)": "cluster.putComponentTemplate",
    r"GET /_index_template/(?P<name>[^/]+)": "indices.getIndexTemplate",
    r"PUT /_index_template/(?P<name>[^/]+)": "indices.putIndexTemplate",
    r"PUT /_data_stream/(?P<name>[^/]+)": "indices.createDataStream",
    r"POST /(?P<index>[^/_][^/]*)/_search": "search",
}
# Elasticsearch's documentation has it; the client's list of names does not yet.
UNLISTED = {"SecurityIndexPrivilege": ["read_failure_store"], "SecurityClusterPrivilege": []}
# Lines of a program before its first call.
HEAD = 4
Call = tuple[str, dict[str, Any]]
Request = tuple[str, str, Any]


# Where a call of the client is changed, and into what.
MISTAKES = [
    ("security.putRole", "indices.0.privilege", ["read"]),
    ("security.putRole", "indices.0.names", {}),
    ("security.putRole", "indices.0.privileges", ["create_doc", "reed"]),
    ("security.putRole", "cluster", ["monitor", "monitors"]),
    ("security.putRole", "cluster", "monitor"),
    ("security.putUser", "role", ["lab_reader"]),
    ("security.putUser", "roles", "lab_reader"),
    ("security.changePassword", "pasword", "x"),
    ("ilm.putLifecycle", "policy.phases.hot.actions.rollover.max_primary_size", "2gb"),
    ("ilm.putLifecycle", "policy.phases.hot.actions.rollover.max_age", 7),
    ("ilm.putLifecycle", "policy.phases.remove", {}),
    ("cluster.putComponentTemplate", "template.settings", {"index": {"replicas": 0}}),
    ("cluster.putComponentTemplate", "template.settings", {"index": {"lifecycle": {"nam": "lab"}}}),
    ("cluster.putComponentTemplate", "template.settings", {"index": {"number_of_shards": {}}}),
    ("cluster.putComponentTemplate", "template.mappings.properties.service.type", "word"),
    ("cluster.putComponentTemplate", "template.mappings.properties.lab.properties.label.ignore", 1),
    ("cluster.putComponentTemplate", "template.data_stream_options", {"failure_store": {"enable": True}}),
    ("indices.putIndexTemplate", "compose_of", []),
    ("indices.putIndexTemplate", "priority", "high"),
    ("indices.createDataStream", "template", "lab"),
    ("search", "quer", {}),
    ("search", "query", {"term": {"event.id": ["p1"]}}),
    ("cluster.health", "wait_for_status", "yelow"),
    ("cluster.health", "wait", "5s"),
]


def _requests() -> list[Request]:
    """Each request of the scripts to Elasticsearch once: method, path with its query, JSON body or None."""
    with stand_in() as server, pytest.MonkeyPatch.context() as monkeypatch:
        assert load_provision(server, monkeypatch).main(["elasticsearch"]) == 0
        with load_smoke(server, monkeypatch) as smoke:
            assert smoke.main() == 0
        return _arrived(server)


def _arrived(server: Any) -> list[Request]:
    result = {}
    for method, path, body in server.asked:
        if not path.startswith(("/api/", "/model", "/predict")):
            result[method, path, body] = method, unquote(path), json.loads(body) if body else None
    return list(result.values())


def _call(method: str, path: str, body: Any) -> Call:
    """The client's function for a request, and its one argument."""
    path, _, query = path.partition("?")
    for pattern, function in CALLS.items():
        if match := re.fullmatch(pattern, f"{method} {path}"):
            options = {
                name: value == "true" if value in ("true", "false") else value for name, value in parse_qsl(query)
            }
            return function, {**match.groupdict(), **options, **(body or {})}
    raise AssertionError(f"{method} {path} is no request that CALLS knows")


def _program(calls: list[Call], url: str) -> list[str]:
    """One line for each call, after HEAD lines; open types of the client are limited to the names that it lists."""
    types = (MODULES / "@elastic/elasticsearch/lib/api/types.d.ts").read_text()
    lines = ['import { Client } from "@elastic/elasticsearch"']
    lines.append(f'const client = new Client({{node: "{url}", auth: {{username: "elastic", password: "right"}}}})')
    for name, more in UNLISTED.items():
        (union,) = re.findall(rf"^export type {name} = (.*) \| string;$", types, re.MULTILINE)
        lines.append(f"/** @typedef {{{' | '.join([union, *map(json.dumps, more)])}}} {name} */")
    assert len(lines) == HEAD
    return lines + [_line(function, argument) for function, argument in calls]


def _line(function: str, argument: dict[str, Any]) -> str:
    # An answer is of no interest here.
    line = f"await client.{function}({json.dumps(argument)}).catch(() => null)"
    if function == "security.putRole":
        rights = [right for each in argument["indices"] for right in each["privileges"]]
        line += _satisfies("SecurityIndexPrivilege[]", rights)
        line += _satisfies("SecurityClusterPrivilege[]", argument.get("cluster", []))
    if function == "cluster.putComponentTemplate" and (settings := argument["template"].get("settings")):
        line += _satisfies('import("@elastic/elasticsearch").estypes.IndicesIndexSettingsKeys', settings["index"])
    return line


def _satisfies(name: str, value: Any) -> str:
    return f"; /** @satisfies {{{name}}} */ ({json.dumps(value)})"


def _mistaken(call: Call, path: str, value: Any) -> Call:
    """The call with the value where `path` leads."""
    function, argument = copy.deepcopy(call)
    *steps, last = path.split(".")
    at: Any = argument
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[last] = value
    return function, argument


@pytest.fixture(scope="module")
def server():
    """A stand-in without requests so far, for the client."""
    with stand_in() as handler:
        handler.not_ready = 0
        yield handler


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, server):
    """A folder with the calls in right.mjs and wrong.mjs, and the output of the compiler."""
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    if not MODULES.is_dir():
        pytest.skip("Elastic's client is not installed: npm ci --prefix tests/elasticsearch")
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(MODULES)
    calls = [_call(*request) for request in _requests()]
    first = {call[0]: call for call in reversed(calls)}
    mistakes = [_mistaken(first[function], path, value) for function, path, value in MISTAKES]
    for name, each in (("right.mjs", calls), ("wrong.mjs", mistakes)):
        (folder / name).write_text("\n".join(_program(each, server.url)) + "\n")
    options = {"noEmit": True, "allowJs": True, "checkJs": True, "strict": True, "skipLibCheck": True}
    options |= {"target": "es2022", "module": "nodenext", "types": []}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.mjs"]}))
    process = _node(folder, str(MODULES / "typescript/bin/tsc"), "--project", ".")
    return folder, process.stdout + process.stderr


def _node(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *words], cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_request_has_its_type(compiled):
    """No request has an unknown key, a value of another type, or an unknown privilege."""
    _, output = compiled
    assert "wrong.mjs" in output, output
    assert "right.mjs" not in output, output


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[f"{call} {path}" for call, path, _ in MISTAKES])
def test_the_compiler_notices_a_mistake(compiled, number):
    """The compiler refuses each mistake, so that its acceptance proves something."""
    _, output = compiled
    assert f"wrong.mjs({HEAD + number + 1}," in output, output


def test_the_client_sends_the_same(compiled, server):
    """The client sends the same methods, paths, parameters and bodies as the scripts."""
    folder, _ = compiled
    process = _node(folder, "right.mjs")
    assert process.returncode == 0, process.stderr
    assert _arrived(server) == _requests()


def test_the_client_is_of_the_images_version():
    """The version of the client is that of Elasticsearch."""
    version = json.loads((CLIENT / "package.json").read_text())["dependencies"]["@elastic/elasticsearch"]
    (default,) = [setting.default for setting in SETTINGS if setting.name == "ELASTIC_VERSION"]
    assert version.split(".")[:2] == default.split(".")[:2]
