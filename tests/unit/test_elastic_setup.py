"""services/elasticsearch/setup.py and smoke.py against a stand-in for Elasticsearch, Kibana and the API."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.unit.test_elastic import ELASTIC, OBJECTS, STREAMS, USERS


@pytest.fixture
def server():
    """A stand-in for all of them: it keeps what is put there, gives what is in `answers`, and is not ready at first."""

    class Handler(BaseHTTPRequestHandler):
        kept, answers, not_ready, password, importable = {}, {}, 3, "right", True

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sign_in = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            status, said = 200, {}
            if Handler.not_ready:
                Handler.not_ready -= 1
                status = 503
            elif self.path in Handler.answers:
                Handler.kept[self.path] = sign_in, body
                said = Handler.answers[self.path]
            elif sign_in != f"elastic:{Handler.password}":
                status, said = 401, {"error": {"reason": "unable to authenticate"}}
            elif self.path.startswith("/_data_stream/") and self.path in Handler.kept:
                status, said = 400, {"error": {"type": "resource_already_exists_exception"}}
            elif self.path == "/api/status":
                said = {"status": {"overall": {"level": "available"}}}
            elif self.command in ("PUT", "POST"):
                Handler.kept[self.path] = body
                if "_import" in self.path:
                    said = {"success": Handler.importable, "successCount": 10, "errors": [{"id": "lab-alert"}]}
            text = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    Handler.url = f"http://127.0.0.1:{httpd.server_port}"
    yield Handler
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def setup(server, monkeypatch):
    """setup.py, hurried, and led to the stand-in."""
    spec = importlib.util.spec_from_file_location("elastic_setup", ELASTIC / "setup.py")
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


def test_setup_waits_and_can_run_again(setup, server, capsys):
    """It outlasts a server that is not ready; the second run leaves everything as the first did."""
    assert setup.main(["elasticsearch"]) == 0
    first = dict(server.kept)
    folders = {"roles": "/_security/role/", "ilm": "/_ilm/policy/", "index_templates": "/_index_template/"}
    expected = {prefix + path.stem for folder, prefix in folders.items() for path in (ELASTIC / folder).glob("*.json")}
    expected |= {"/_component_template/lab%40mappings", "/_component_template/lab%40settings"}
    expected |= {f"/_security/user/{name}" for name in USERS} | {f"/_data_stream/{name}" for name in STREAMS}
    assert set(first) == expected | {"/_security/user/kibana_system/_password"}
    user = json.loads(first["/_security/user/lab_reader"])
    assert user == {"password": "password of lab_reader", "roles": ["lab_reader"]}
    assert setup.main(["elasticsearch"]) == 0
    assert server.kept == first
    said = capsys.readouterr()
    assert "(there)" in said.out
    assert "password of" not in said.out + said.err


def test_setup_imports_every_object(setup, server, capsys):
    """All files in one form, so that a dashboard finds its data views; and it says what Kibana did not take."""
    assert setup.main(["kibana"]) == 0
    body = server.kept["/api/saved_objects/_import?overwrite=true"].decode()
    assert sum(json.loads(line)["id"] in body for line in body.splitlines() if line.startswith("{")) == len(OBJECTS)
    server.importable = False
    assert setup.main(["kibana"]) == 1
    assert "lab-alert" in capsys.readouterr().err


def test_setup_says_what_is_wrong(setup, server, monkeypatch, capsys):
    """A wrong password, an unset one, nobody there: one message and a way out, within the limit."""
    server.password = "of an older volume"
    assert setup.main(["elasticsearch"]) == 1
    assert "refuses the password of elastic" in capsys.readouterr().err
    assert not server.kept
    monkeypatch.setenv("SETUP_SECONDS", "0.2")
    monkeypatch.setenv("KIBANA_URL", "http://127.0.0.1:9")
    assert setup.main(["kibana"]) == 1
    assert "gave no good answer in time" in capsys.readouterr().err
    monkeypatch.delenv("ELASTIC_PASSWORD")
    assert setup.main(["elasticsearch"]) == 1
    assert "ELASTIC_PASSWORD is not set" in capsys.readouterr().err
    assert setup.main([]) == 2


@pytest.fixture
def smoke(server, monkeypatch):
    """smoke.py, hurried, and everything that it looks for."""
    monkeypatch.syspath_prepend(str(ELASTIC))
    module = importlib.import_module("smoke")
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.1)
    for name in ("API_PORT", "ELASTICSEARCH_PORT", "KIBANA_PORT"):
        monkeypatch.setenv(name, server.url.rpartition(":")[2])
    monkeypatch.setenv("READER_PASSWORD", "may look")
    event = {"@timestamp": "t", "data_stream": {"dataset": "lab.prediction"}, "trace": {"id": "abc"}}
    features = [{"name": "a", "type": "integer", "min": 0.5}, {"name": "b", "type": "real", "min": 0.5}]
    export = [{"type": "dashboard", "attributes": {"title": "A"}}, {"missingRefCount": 0, "excludedObjectsCount": 0}]
    server.not_ready = 0
    server.answers = {
        "/model": {"card": {"features": features}},
        "/predict": {"id": "p1"},
        "/logs-lab.prediction-*/_search?ignore_unavailable=true": {"hits": {"hits": [{"_source": event}]}},
        "/traces-apm*/_search?ignore_unavailable=true": {"hits": {"hits": [{"_source": {"trace": {"id": "abc"}}}]}},
        "/api/data_views/data_view/lab-prediction": {"data_view": {"name": "N", "title": "T"}},
        "/api/saved_objects/_export": b"\n".join(json.dumps(line).encode() for line in export),
    }
    yield module
    sys.modules.pop("smoke")
    sys.modules.pop("setup")


def test_smoke_finds_what_it_sent(smoke, server, capsys):
    """As lab_reader, by the prediction's id and then by its trace; the record lies within the card's bounds."""
    assert smoke.main() == 0
    assert "MISSING" not in capsys.readouterr().out
    assert json.loads(server.kept["/predict"][1]) == {"a": 1, "b": 0.5}
    for path, value in (("/logs-lab.prediction-*", "p1"), ("/traces-apm*", "abc")):
        sign_in, body = server.kept[f"{path}/_search?ignore_unavailable=true"]
        assert sign_in == "lab_reader:may look"
        assert value in json.loads(body)["query"]["term"].values()


def test_smoke_says_what_is_missing(smoke, server, capsys):
    """And goes on to the next; nothing waits longer than the limit."""
    server.answers["/traces-apm*/_search?ignore_unavailable=true"] = {"hits": {"hits": []}}
    server.answers["/api/saved_objects/_export"] = b'{"missingRefCount": 1, "excludedObjectsCount": 0}'
    assert smoke.main() == 1
    said = capsys.readouterr().out
    assert "found    event" in said
    assert "MISSING  trace" in said
    assert "found    view" in said
    assert "MISSING  boards" in said
