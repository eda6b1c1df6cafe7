"""A stand-in for Elasticsearch, Kibana and the API, to which provision.py and elk_smoke.py are led."""

from __future__ import annotations

import base64
import fnmatch
import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from lab.settings import NAMES
from tests.unit import kibana_rules
from tests.unit.test_elastic import ELASTIC, RULES, USERS

ECS = "/_component_template/ecs@mappings"
TRACES = "/_index_template/traces-apm@template"

# What Kibana says of a rule that runs.
RULE = {"enabled": True, "execution_status": {"status": "ok"}}


class StandIn(BaseHTTPRequestHandler):
    """It keeps what is put there, gives what is in `answers`, and is not ready at first.

    As Elasticsearch does it makes the templates in `coming` some time after its start, here after so many questions,
    and refuses what needs one that is not there. `raw` is sent as it stands in place of the next answers.
    """

    url: str
    kept: ClassVar[dict[str, Any]]
    asked: ClassVar[list[tuple[str, str, bytes]]]
    answers: ClassVar[dict[str, Any]]
    coming: ClassVar[dict[str, int]]
    raw: ClassVar[list[bytes]]
    not_ready, password, importable = 3, "right", True
    kibana: tuple[int, str] = 200, "available"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.raw:
            self.wfile.write(self.raw.pop(0))
            return
        status, value = self.reply(body)
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        # Without it Elastic's own client talks to nobody.
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = answer  # noqa: N815

    def reply(self, body: bytes) -> tuple[int, Any]:
        cls, sign_in = type(self), self.headers.get("Authorization", "").removeprefix("Basic ")
        user = base64.b64decode(sign_in).decode()
        if self.not_ready:
            cls.not_ready -= 1
            return 503, {}
        self.asked.append((self.command, self.path, body))
        if self.path in self.answers:
            self.kept[self.path] = user, body
            return 200, self.answers[self.path]
        if self.path == "/api/status":  # it asks nobody to sign in
            return self.kibana[0], {"status": {"overall": {"level": self.kibana[1]}}}
        is_rule = self.path.startswith("/api/alerting/rule/")
        if user != f"elastic:{self.password}" and not (is_rule and user == "lab_reader:may look"):
            return 401, {"error": {"reason": "unable to authenticate"}}
        if is_rule:
            return self.rule(body)
        if self.command == "GET":
            return self.give(unquote(self.path))
        return self.keep(unquote(self.path), body)

    def give(self, path: str) -> tuple[int, Any]:
        if path in self.coming:
            self.coming[path] -= 1
        exists = path.startswith("/_cluster/") or self.there(path)
        return (200, {}) if exists else (404, {"error": {"reason": f"{path} not found"}})

    def keep(self, path: str, body: bytes) -> tuple[int, Any]:
        if path.startswith("/_index_template/"):
            names = json.loads(body)["composed_of"]
            if absent := [name for name in names if not self.there(f"/_component_template/{name}")]:
                return 400, {"error": {"reason": f"specifies component templates {absent} that do not exist"}}
        if stream := path.partition("/_data_stream/")[2]:
            if path in self.kept:
                return 400, {"error": {"type": "resource_already_exists_exception"}}
            if not any(fnmatch.fnmatch(stream, pattern) for pattern in self.patterns()):
                return 400, {"error": {"reason": f"no matching index template found for data stream [{stream}]"}}
        self.kept[path] = body
        if "_import" in path:
            return 200, {"success": self.importable, "successCount": 10, "errors": [{"id": "lab-alert"}]}
        return 200, {}

    def rule(self, body: bytes) -> tuple[int, Any]:
        """As Kibana: POST creates, PUT changes what exists, and a body that does not fit is refused."""
        exists = self.path in self.kept
        if self.command == "GET" or (self.command == "PUT" and not exists):
            return (200, json.loads(self.kept[self.path])) if exists else (404, {"message": "not found"})
        if self.command == "POST" and exists:
            return 409, {"message": "there"}
        try:
            kibana_rules.check(body, self.command, self.path.rpartition("/")[2])
        except ValueError as error:
            return 400, {"message": str(error)}
        self.kept[self.path] = body
        return 200, {}

    def there(self, path: str) -> bool:
        return path in self.kept or self.coming.get(path, 1) <= 0

    def patterns(self) -> list[str]:
        templates = [json.loads(body) for path, body in self.kept.items() if path.startswith("/_index_template/")]
        own = ["traces-apm-*"] if self.there(TRACES) else []
        return own + [pattern for template in templates for pattern in template["index_patterns"]]

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[type[StandIn]]:
    """A stand-in of its own that listens at `url`."""
    state = {"kept": {}, "asked": [], "answers": {}, "coming": {ECS: 3, TRACES: 3}, "raw": []}
    handler = type("Handler", (StandIn,), state)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{httpd.server_port}"
    yield handler
    httpd.shutdown()
    httpd.server_close()


def load_provision(server: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> Any:
    """provision.py with short waits, led to the stand-in."""
    spec = importlib.util.spec_from_file_location("elastic_provision", ELASTIC / "provision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.1)
    values = {user["password"]: f"password of {name}" for name, user in USERS.items()}
    values |= {"ELASTIC_PASSWORD": "right", "KIBANA_PASSWORD": "k", "SETUP_SECONDS": "5"}
    values |= {"ELASTICSEARCH_URL": server.url, "KIBANA_URL": server.url}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return module


@contextmanager
def load_smoke(server: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """elk_smoke.py with short waits, led to the stand-in, which has all that the script looks for."""
    monkeypatch.syspath_prepend(str(ELASTIC))
    module = importlib.import_module("tests.elk_smoke")
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    for name in ("API_PORT", "ELASTICSEARCH_PORT", "KIBANA_PORT"):
        monkeypatch.setenv(name, server.url.rpartition(":")[2])
    monkeypatch.setenv("READER_PASSWORD", "may look")
    monkeypatch.setenv(NAMES, "API_PORT ELASTICSEARCH_PORT KIBANA_PORT READER_PASSWORD")
    event = {"@timestamp": "t", "data_stream": {"dataset": "lab.prediction"}, "trace": {"id": "abc"}}
    features = [{"name": "a", "type": "integer", "min": 0.5}, {"name": "b", "type": "real", "min": 0.5}]
    rules = {f"/api/alerting/rule/{rule['id']}": RULE | {"name": rule["name"]} for rule in RULES}
    export = [{"type": "dashboard", "attributes": {"title": "A"}}, {"missingRefCount": 0, "excludedObjectsCount": 0}]
    server.not_ready = 0
    server.answers = {
        "/model": {"card": {"features": features}},
        "/predict": {"id": "p1"},
        "/logs-lab.prediction-*/_search?ignore_unavailable=true": {"hits": {"hits": [{"_source": event}]}},
        "/traces-apm*/_search?ignore_unavailable=true": {"hits": {"hits": [{"_source": {"trace": {"id": "abc"}}}]}},
        "/api/data_views/data_view/lab-prediction": {"data_view": {"name": "N", "title": "T"}},
        "/api/saved_objects/_export": b"\n".join(json.dumps(line).encode() for line in export),
        **rules,
    }
    yield module
    sys.modules.pop("tests.elk_smoke")
    sys.modules.pop("provision")
