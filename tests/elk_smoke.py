"""Show that the Elastic part works: python -m tests.elk_smoke, with the lab up in containers.

It sends one prediction to the API, and as lab_reader it finds the prediction in Elasticsearch by its id, the trace by
the trace's id, and in Kibana the data view, the dashboards with all that they refer to, and the alert rules, which
must run. It writes nothing else.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# provision.py is run by its path in a container, so its folder is not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "services" / "elasticsearch"))

from provision import RULES, UNREADY, ProvisionError, Server, read

from lab import http, settings
from lab.errors import LabError, run
from lab.record import Value

# Filebeat looks every five seconds, the APM agent sends every ten, an index shows new documents after one.
ARRIVAL_SECONDS = 120.0
LOOK_SECONDS = 2.0
DASHBOARDS = ("lab-service", "lab-model")


def main() -> int:
    """Run every check and print its result; 1 when one failed."""
    lab = settings.load()
    prediction = predict(lab)
    print(f"sent     prediction {prediction}")
    elasticsearch, kibana = reader(lab, "Elasticsearch", "ELASTICSEARCH_PORT"), reader(lab, "Kibana", "KIBANA_PORT")
    result: dict[str, Any] = {}

    def event() -> str:
        result.update(first(elasticsearch, "logs-lab.prediction-*", "event.id", prediction))
        return f"recorded at {result['@timestamp']} in {result['data_stream']['dataset']}"

    def trace() -> str:
        if not result:
            raise ProvisionError("the trace is not known without the event")
        span = first(elasticsearch, "traces-apm*", "trace.id", field(result, "trace.id"))
        return f"{field(span, 'trace.id')}, {span.get('transaction', {}).get('name', 'a span of it')}"

    checks = {"event": event, "trace": trace, "view": lambda: data_view(kibana), "boards": lambda: dashboards(kibana)}
    checks["rules"] = lambda: rules(kibana)
    results = [report(name, check) for name, check in checks.items()]
    return int(not all(results))


def report(name: str, check: Callable[[], str]) -> bool:
    try:
        print(f"found    {name}: {check()}")
    except (ProvisionError, KeyError, TypeError, ValueError) as error:
        print(f"MISSING  {name}: {error if isinstance(error, ProvisionError) else repr(error)}")
        return False
    return True


def reader(lab: settings.Settings, name: str, port: str) -> Server:
    url = f"http://127.0.0.1:{lab.port(port)}"
    return Server(name, url, "lab_reader", lab.secret("READER_PASSWORD"), time.monotonic() + ARRIVAL_SECONDS)


def predict(lab: settings.Settings) -> str:
    """Send the smallest record that the champion's card allows; give the prediction's id. Raises LabError."""
    card = http.get_json(f"{lab.api_url}/model", key=lab.api_key)["card"]
    record = {feature["name"]: _value(feature) for feature in card["features"]}
    url = f"{lab.api_url}/predict"
    answer = http.decode(url, http.request("POST", url, json=record, key=lab.api_key, client="demo"))
    if not isinstance(answer, dict) or not answer.get("id"):
        raise LabError(f"{url} gave no id: {answer!r}"[:300], "see `make logs`")
    return str(answer["id"])


def _value(feature: dict[str, Any]) -> Value:
    if feature["type"] in ("category", "boolean"):
        return [*feature.get("levels", []), False][0]
    return math.ceil(feature["min"]) if feature["type"] == "integer" else feature["min"]


def first(server: Server, index: str, name: str, value: str) -> dict[str, Any]:
    """The first document of `index` whose field `name` has the value, waited for; raise ProvisionError."""
    body = json.dumps({"size": 1, "query": {"term": {name: value}}}).encode()
    path = f"/{index}/_search?ignore_unavailable=true"
    while True:
        _, answer = server.ask("POST", path, body, again=UNREADY)
        if answer["hits"]["hits"]:
            source: dict[str, Any] = answer["hits"]["hits"][0]["_source"]
            return source
        if time.monotonic() > server.deadline:
            raise ProvisionError(f"{server.name} has no document in {index} whose {name} is {value}")
        time.sleep(LOOK_SECONDS)


def field(document: dict[str, Any], name: str) -> str:
    """A field by its dotted name, whether the document nests it or not."""
    if name in document:
        return str(document[name])
    value: Any = document
    for part in name.split("."):
        value = value[part]
    return str(value)


def data_view(kibana: Server) -> str:
    _, answer = kibana.ask("GET", "/api/data_views/data_view/lab-prediction", again=UNREADY)
    return f"{answer['data_view']['name']}, {answer['data_view']['title']}"


def dashboards(kibana: Server) -> str:
    """Export the dashboards, for Kibana counts what they miss; raise ProvisionError if they miss anything."""
    objects = [{"type": "dashboard", "id": name} for name in DASHBOARDS]
    body = json.dumps({"objects": objects, "includeReferencesDeep": True}).encode()
    _, answer = kibana.ask("POST", "/api/saved_objects/_export", body, again=UNREADY)
    lines = [answer] if isinstance(answer, dict) else [json.loads(line) for line in answer.splitlines()]
    if lines[-1]["missingRefCount"] or lines[-1]["excludedObjectsCount"]:
        raise ProvisionError(f"the dashboards refer to what is not there: {lines[-1]}")
    return ", ".join(sorted(line["attributes"]["title"] for line in lines if line.get("type") == "dashboard"))


def rules(kibana: Server) -> str:
    """The names of the alert rules; raise ProvisionError if one is missing, or its last run failed."""
    names = []
    for file in sorted(RULES.glob("*.json")):
        rule = read(file)
        status, answer = kibana.ask("GET", f"/api/alerting/rule/{rule['id']}")
        if status != 200:
            raise ProvisionError(f"{kibana.name} has no rule {rule['name']} ({status})")
        if answer["execution_status"]["status"] == "error":
            raise ProvisionError(f"the rule {rule['name']} fails: {answer['execution_status'].get('error')}")
        names.append(answer["name"] if answer["enabled"] else f"{answer['name']} (disabled)")
    return ", ".join(names)


if __name__ == "__main__":
    run(main)
