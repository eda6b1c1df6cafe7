"""Shows that the Elastic part really works: python -m tests.elk_smoke, with the lab up in containers.

Sends one prediction to the API and finds it again, as lab_reader: in Elasticsearch by its id, its trace by the trace's
id, and through Kibana the data view and the dashboards with everything they refer to. Nothing else is written.
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

from provision import ProvisionError, Server

from lab import http, settings
from lab.errors import LabError, run

# Filebeat looks every five seconds, the APM agent sends every ten, an index shows new documents after one.
ARRIVAL_SECONDS = 120.0
DASHBOARDS = ("lab-predictions", "lab-operation")


def main() -> int:
    """Run every check, say of each what was found; 1 when one failed."""
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
            raise ProvisionError("without the event nobody knows its trace")
        span = first(elasticsearch, "traces-apm*", "trace.id", field(result, "trace.id"))
        return f"{field(span, 'trace.id')}, {span.get('transaction', {}).get('name', 'a span of it')}"

    checks = {"event": event, "trace": trace, "view": lambda: data_view(kibana), "boards": lambda: dashboards(kibana)}
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
    record = {f["name"]: math.ceil(f["min"]) if f["type"] == "integer" else f["min"] for f in card["features"]}
    url = f"{lab.api_url}/predict"
    answer = http.decode(url, http.request("POST", url, json=record, key=lab.api_key, client="demo"))
    if not isinstance(answer, dict) or not answer.get("id"):
        raise LabError(f"{url} gave no id: {answer!r}"[:300], "see `make logs`")
    return str(answer["id"])


def first(server: Server, index: str, name: str, value: str) -> dict[str, Any]:
    """The first document of `index` whose field `name` has the value, waited for; raise ProvisionError."""
    body = json.dumps({"size": 1, "query": {"term": {name: value}}}).encode()
    path = f"/{index}/_search?ignore_unavailable=true"
    _, answer = server.wait(
        "POST", path, body, until=lambda status, answer: status == 200 and bool(answer["hits"]["hits"])
    )
    source: dict[str, Any] = answer["hits"]["hits"][0]["_source"]
    return source


def field(document: dict[str, Any], name: str) -> str:
    """A field by its dotted name, whether the document nests it or not."""
    if name in document:
        return str(document[name])
    value: Any = document
    for part in name.split("."):
        value = value[part]
    return str(value)


def data_view(kibana: Server) -> str:
    _, answer = kibana.wait("GET", "/api/data_views/data_view/lab-prediction", until=lambda status, _: status == 200)
    return f"{answer['data_view']['name']}, {answer['data_view']['title']}"


def dashboards(kibana: Server) -> str:
    """Export the dashboards, for Kibana counts what they miss; raise ProvisionError if they miss anything."""
    objects = [{"type": "dashboard", "id": name} for name in DASHBOARDS]
    body = json.dumps({"objects": objects, "includeReferencesDeep": True}).encode()
    _, answer = kibana.wait("POST", "/api/saved_objects/_export", body, until=lambda status, _: status == 200)
    lines = [answer] if isinstance(answer, dict) else [json.loads(line) for line in answer.splitlines()]
    if lines[-1]["missingRefCount"] or lines[-1]["excludedObjectsCount"]:
        raise ProvisionError(f"the dashboards refer to what is not there: {lines[-1]}")
    return ", ".join(sorted(line["attributes"]["title"] for line in lines if line.get("type") == "dashboard"))


if __name__ == "__main__":
    run(main)
