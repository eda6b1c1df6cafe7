"""provision.py and elk_smoke.py, run against a stand-in for Elasticsearch, Kibana and the API."""

from __future__ import annotations

import json
import sys

import pytest

from lab.settings import Settings
from launcher.services import ELASTIC as SERVICES
from tests.unit import kibana_rules
from tests.unit.elastic import ECS, RULE, TRACES, load_provision, load_smoke, stand_in
from tests.unit.test_elastic import ELASTIC, OBJECTS, RULES, STREAMS, USERS

# Cut off half-way, not HTTP at all, an error cut off, and a connection closed without a word.
BROKEN = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n{",
    b"",
)


@pytest.fixture
def server():
    with stand_in() as handler:
        yield handler


@pytest.fixture
def setup(server, monkeypatch):
    return load_provision(server, monkeypatch)


def test_setup_waits_and_can_run_again(setup, server, capsys):
    """The setup waits for a server that is not ready, and a second run changes nothing."""
    assert setup.main(["elasticsearch"]) == 0
    first = dict(server.kept)
    folders = {"roles": "/_security/role/", "ilm": "/_ilm/policy/", "index_templates": "/_index_template/"}
    expected = {prefix + path.stem for folder, prefix in folders.items() for path in (ELASTIC / folder).glob("*.json")}
    expected |= {"/_component_template/lab@mappings", "/_component_template/lab@settings"}
    expected |= {f"/_security/user/{name}" for name in USERS}
    expected |= {f"/_data_stream/{name}" for name in (*STREAMS, "traces-apm-default")}
    assert set(first) == expected | {"/_security/user/kibana_system/_password"}
    user = json.loads(first["/_security/user/lab_reader"])
    assert user == {"password": "password of lab_reader", "roles": ["lab_reader"]}
    assert setup.main(["elasticsearch"]) == 0
    assert server.kept == first
    output = capsys.readouterr()
    assert "(there)" in output.out
    assert "password of" not in output.out + output.err


@pytest.mark.parametrize("missing", [ECS, TRACES])
def test_setup_waits_for_elasticsearchs_own_templates(setup, server, monkeypatch, capsys, missing):
    """The setup waits for templates that Elasticsearch makes late, and names one that never comes."""
    server.coming[missing] = 30
    assert setup.main(["elasticsearch"]) == 0
    assert "/_data_stream/traces-apm-default" in server.kept
    server.kept.clear()
    server.coming[missing] = 10**9
    monkeypatch.setenv("SETUP_SECONDS", "0.2")
    assert setup.main(["elasticsearch"]) == 1
    assert missing.partition("@")[2] in capsys.readouterr().err


@pytest.mark.parametrize("part", ["elasticsearch", "kibana"])
def test_setup_outlasts_answers_that_are_none(setup, server, part):
    """A cut answer, one that is not HTTP, and a closed connection are tried again."""
    server.raw.extend(BROKEN)
    assert setup.main([part]) == 0
    assert not server.raw


@pytest.mark.parametrize(
    ("status", "level", "code"), [(200, "degraded", 0), (200, "unavailable", 0), (503, "available", 1)]
)
def test_kibana_is_available_when_its_status_is_200(setup, server, monkeypatch, status, level, code):
    """Status 200 counts with any overall level, which one plugin can lower, also for `make status`."""
    server.kibana = status, level
    server.not_ready = 0
    monkeypatch.setenv("SETUP_SECONDS", "0.2")
    assert setup.main(["kibana"]) == code
    kibana = next(service for service in SERVICES if service.name == "kibana")
    assert kibana.healthy(Settings(kibana_port=int(server.url.rpartition(":")[2]))) is (code == 0)


def test_setup_imports_every_object(setup, server, capsys):
    """All objects are imported in one request, and the message names those that Kibana refused."""
    assert setup.main(["kibana"]) == 0
    body = server.kept["/api/saved_objects/_import?overwrite=true"].decode()
    assert sum(json.loads(line)["id"] in body for line in body.splitlines() if line.startswith("{")) == len(OBJECTS)
    server.importable = False
    assert setup.main(["kibana"]) == 1
    assert "lab-alert" in capsys.readouterr().err


def rule_path(rule):
    return f"/api/alerting/rule/{rule['id']}"


def test_setup_creates_each_rule_and_changes_it_later(setup, server, capsys):
    """The first run creates the rules with their own ids, and the next one changes them and disables none."""
    assert setup.main(["kibana"]) == 0
    created = {path: json.loads(body) for path, body in server.kept.items() if "/rule/" in path}
    assert created == {rule_path(rule): {k: v for k, v in rule.items() if k != "id"} for rule in RULES}
    assert len(created) == 3
    assert setup.main(["kibana"]) == 0
    asked = [(method, path) for method, path, _ in server.asked if "/rule/" in path]
    assert [method for method, _ in asked] == ["GET", "POST"] * 3 + ["GET", "PUT"] * 3
    for rule in RULES:
        changed = json.loads(server.kept[rule_path(rule)])
        assert changed == {k: v for k, v in rule.items() if k in ("name", "tags", "schedule", "params", "actions")}
    assert capsys.readouterr().out.count("(there)") == 3


def test_setup_takes_a_rule_whose_creation_was_not_answered(setup, server, monkeypatch):
    """When the answer to POST was lost, the repeat is a conflict, and the rule is changed."""
    assert setup.main(["kibana"]) == 0
    server.asked.clear()
    real = server.rule
    monkeypatch.setattr(server, "rule", lambda self, body: (404, {}) if self.command == "GET" else real(self, body))
    assert setup.main(["kibana"]) == 0
    assert [method for method, path, _ in server.asked if "/rule/" in path] == ["GET", "POST", "PUT"] * 3


def test_setup_names_a_rule_that_kibana_refuses(setup, server, monkeypatch, capsys):
    """The message names the rule and the reason, and the setup fails."""
    monkeypatch.setattr(kibana_rules, "check", lambda *_: (_ for _ in ()).throw(ValueError("no such field")))
    assert setup.main(["kibana"]) == 1
    error = capsys.readouterr().err
    assert RULES[0]["name"] in error
    assert "no such field" in error


@pytest.mark.parametrize(
    "change",
    [
        {"id": "model-alert"},
        {"rule_type_id": ".index-threshold"},
        {"schedule": {"interval": "1 minute"}},
        {"actions": [{"id": "webhook"}]},
        {"sourceFields": []},
        {"params": {"searchType": "esQuery"}},
        {"params": RULES[1]["params"] | {"groupBy": "top", "termField": None}},
        {"params": RULES[1]["params"] | {"esQuery": "{}"}},
        {"params": RULES[0]["params"] | {"threshold": [1]}},
    ],
)
def test_the_stand_in_refuses_a_wrong_rule(change):
    """The stand-in refuses wrong rules, so that its acceptance proves something."""
    rule = {**RULES[1], **change}
    with pytest.raises(ValueError, match=r"."):
        kibana_rules.check(json.dumps({k: v for k, v in rule.items() if k != "id"}).encode(), "POST", rule["id"])


def test_lab_reader_sees_the_rules():
    """The role reads all of Kibana's default space, and Kibana's feature of stack rules is part of that privilege."""
    (application,) = json.loads((ELASTIC / "roles/lab_reader.json").read_text())["applications"]
    assert application["privileges"] == ["space_read"]
    assert application["resources"] == ["space:default"]
    assert {rule["consumer"] for rule in RULES} == {"stackAlerts"}


def test_smoke_says_which_rule_is_missing_or_fails(smoke, server, capsys):
    """The script names a rule that is not there, and one whose last run failed."""
    server.answers[rule_path(RULES[0])] = RULE | {"name": "N", "execution_status": {"status": "error", "error": "E"}}
    assert smoke.main() == 1
    assert f"MISSING  rules: the rule {RULES[0]['name']} fails: E" in capsys.readouterr().out
    del server.answers[rule_path(RULES[0])]
    server.kept.clear()
    assert smoke.main() == 1
    assert f"MISSING  rules: Kibana has no rule {RULES[0]['name']} (404)" in capsys.readouterr().out


def test_setup_says_what_is_wrong(setup, server, monkeypatch, capsys):
    """A wrong password, a missing one and a server that is away each give one message with a remedy in time."""
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
    with load_smoke(server, monkeypatch) as module:
        yield module


def test_smoke_finds_what_it_sent(smoke, server, capsys):
    """As lab_reader the script finds the prediction by its id and its trace; the record is within the card's bounds."""
    assert smoke.main() == 0
    assert "MISSING" not in capsys.readouterr().out
    assert json.loads(server.kept["/predict"][1]) == {"a": 1, "b": 0.5}
    for path, value in (("/logs-lab.prediction-*", "p1"), ("/traces-apm*", "abc")):
        sign_in, body = server.kept[f"{path}/_search?ignore_unavailable=true"]
        assert sign_in == "lab_reader:may look"
        assert value in json.loads(body)["query"]["term"].values()


def test_smoke_outlasts_answers_that_are_none(smoke, server, monkeypatch, capsys):
    """Elasticsearch and Kibana are asked again after broken answers."""
    monkeypatch.setattr(sys.modules["provision"], "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(smoke, "ARRIVAL_SECONDS", 5)
    monkeypatch.setattr(smoke, "predict", lambda _: "p1")
    server.raw.extend(BROKEN)
    assert smoke.main() == 0
    assert not server.raw
    assert "MISSING" not in capsys.readouterr().out


def test_smoke_says_what_is_missing(smoke, server, capsys):
    """The script reports what is missing, goes on to the next check, and no wait exceeds the limit."""
    server.answers["/traces-apm*/_search?ignore_unavailable=true"] = {"hits": {"hits": []}}
    server.answers["/api/saved_objects/_export"] = b'{"missingRefCount": 1, "excludedObjectsCount": 0}'
    assert smoke.main() == 1
    output = capsys.readouterr().out
    assert "found    event" in output
    assert "MISSING  trace" in output
    assert "found    view" in output
    assert "MISSING  boards" in output
