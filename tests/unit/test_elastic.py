"""The configuration of the Elastic part, checked without its images."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from lab import events
from tests.unit.logstash import parse

SERVICES = Path(__file__).resolve().parents[2] / "services"
ELASTIC = SERVICES / "elasticsearch"
# What the dashboards use of the traces; these names are the APM Server's.
APM_FIELDS = {
    "@timestamp": "date",
    "processor.event": "keyword",
    "transaction.name": "keyword",
    "transaction.duration.us": "long",
}
EVENTS = events.Event.__subclasses__()
# Those of lab/event_types.py, and one for lines that are no event.
DATASETS = {*events.DATASETS, "lab.unreadable"}


def load(path):
    return json.loads((ELASTIC / path).read_text())


def leaves(properties, prefix=""):
    """Every field of a mapping by its dotted name, with its type and those of its subfields."""
    result = {}
    for name, field in properties.items():
        if "type" in field:
            result[prefix + name] = field["type"]
        result |= leaves(field.get("properties", {}), f"{prefix}{name}.")
        result |= leaves(field.get("fields", {}), f"{prefix}{name}.")
    return result


MAPPINGS = load("component_templates/lab@mappings.json")["template"]["mappings"]
FIELDS = leaves(MAPPINGS["properties"])
STREAMS = load("data_streams.json")["lab"]
USERS = load("users.json")
PIPELINE = (SERVICES / "logstash/pipeline/lab.conf").read_text()
OBJECTS = [json.loads(line) for path in (SERVICES / "kibana/objects").glob("*.ndjson") for line in path.open()]
RULES = [json.loads(path.read_text()) for path in sorted((SERVICES / "kibana/rules").glob("*.json"))]
VIEWS = {found["id"]: found["attributes"]["title"] for found in OBJECTS if found["type"] == "index-pattern"}
DASHBOARDS = [found for found in OBJECTS if found["type"] == "dashboard"]
PANELS = [panel for board in DASHBOARDS for panel in json.loads(board["attributes"]["panelsJSON"])]


@pytest.mark.parametrize(
    "path", sorted(SERVICES.rglob("*.json")) + sorted(SERVICES.rglob("*.yml")), ids=lambda p: p.name
)
def test_every_file_parses(path):
    """Every YAML and JSON file parses, and no key is repeated."""
    assert yaml.safe_load(path.read_text())
    keys = re.findall(r"^([\w.]+):", path.read_text(), re.MULTILINE)
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.__name__)
def test_every_field_of_an_event_is_mapped(event):
    """Every field of an event is mapped by its name on disk, so that Elasticsearch guesses no type."""
    names = {field.encode_name for field in msgspec.structs.fields(event)}
    assert names | {events.DATASET} <= {*FIELDS, "lab.features", "lab.figures"}


def test_every_mapped_field_is_an_events():
    """Every mapped field is one of an event; message.keyword is the message for tables."""
    assert set(FIELDS) - {"message.keyword"} == {*events.NAMES.values(), events.DATASET}
    rules = {name: rule for entry in MAPPINGS["dynamic_templates"] for name, rule in entry.items()}
    for group in ("features", "figures"):
        for kind in ("long", "double"):
            template = {"path_match": f"lab.{group}.*", "match_mapping_type": kind, "mapping": {"type": "double"}}
            assert rules[f"lab_{group}_{kind}"] == template


def test_the_index_template_wins_and_is_whole():
    """The template has a higher priority than the built-in one, and each of its components exists."""
    template = load("index_templates/lab.json")
    assert template["priority"] > 100
    own = {path.stem for path in (ELASTIC / "component_templates").glob("*.json")}
    assert own <= set(template["composed_of"]) <= own | {"ecs@mappings"}
    settings = load("component_templates/lab@settings.json")["template"]["settings"]["index"]
    assert (ELASTIC / "ilm" / f"{settings['lifecycle']['name']}.json").is_file()


def test_the_datasets_are_the_same_everywhere():
    """Events, Logstash, index template, data streams and data views have the same datasets."""
    assert {event.__struct_config__.tag for event in EVENTS} == set(events.DATASETS)
    (let_through,) = re.findall(r"\[event\]\[dataset\] in \[([^\]]*)\]", PIPELINE)
    put_aside = re.findall(r'"\[data_stream\]\[dataset\]" => "(lab[^"]*)"', PIPELINE)
    assert sorted(re.findall(r'"([^"]*)"', let_through)) == sorted(events.DATASETS)
    assert {*events.DATASETS, *put_aside} == DATASETS
    assert sorted(STREAMS) == sorted(f"logs-{name}-default" for name in DATASETS)
    assert sorted(load("index_templates/lab.json")["index_patterns"]) == sorted(f"logs-{name}-*" for name in DATASETS)
    views = {f"lab-{name.partition('.')[2]}": f"logs-{name}-*" for name in DATASETS}
    assert views | {"lab-events": "logs-lab.*-*", "lab-traces": "traces-apm*"} == VIEWS


def test_every_view_has_a_data_stream_before_its_first_document():
    """Each view has a data stream from the start, because a panel shows an error without one."""
    data_streams = load("data_streams.json")
    assert data_streams.keys() == {"lab", "traces-apm@template"}
    names = [name for streams in data_streams.values() for name in streams]
    assert all(fnmatch.filter(names, pattern) for pattern in VIEWS.values())
    assert data_streams["traces-apm@template"] == ["traces-apm-default"]


def test_roles_reach_what_their_users_write_and_read():
    """Each user has a role of this repository, and Logstash may write and the reader read each data stream."""
    assert all((ELASTIC / "roles" / f"{role}.json").is_file() for user in USERS.values() for role in user["roles"])
    for role, privilege in (("logstash_writer", "create_doc"), ("lab_reader", "read")):
        rights = load(f"roles/{role}.json")["indices"]
        patterns = [name for right in rights if privilege in right["privileges"] for name in right["names"]]
        assert all(any(fnmatch.fnmatch(stream, pattern) for pattern in patterns) for stream in STREAMS)
    rights = [privilege for right in load("roles/logstash_writer.json")["indices"] for privilege in right["privileges"]]
    assert set(rights) == {"auto_configure", "create_doc"}


def test_each_service_signs_in_as_its_own_user():
    """Each service uses the password that the setup gives to its user."""
    (name, output) = parse(PIPELINE)["output"][0]
    apm = yaml.safe_load((SERVICES / "apm-server/apm-server.yml").read_text())["output.elasticsearch"]
    kibana = yaml.safe_load((SERVICES / "kibana/kibana.yml").read_text())
    passwords = {output["user"]: output["password"], apm["username"]: apm["password"]}
    assert name == "elasticsearch"
    assert passwords == {user: "${" + USERS[user]["password"] + "}" for user in ("logstash_writer", "apm_writer")}
    assert kibana["elasticsearch.username"] == "kibana_system"
    assert kibana["elasticsearch.password"] == "${KIBANA_PASSWORD}"


def test_the_pipeline_keeps_every_line():
    """The ports agree, every event gets an id, no event is dropped, and a queue on disk holds waiting events."""
    sections = parse(PIPELINE)
    filebeat = yaml.safe_load((SERVICES / "filebeat/filebeat.yml").read_text())
    assert filebeat["output.logstash"]["hosts"] == [f"logstash:{sections['input'][0][1]['port']}"]
    plugins = [name for name, _ in sections["filter"]]
    assert "drop" not in plugins
    assert sections["output"][0][1]["document_id"] == "%{[@metadata][id]}"
    assert PIPELINE.count("[@metadata][id]") == 3
    assert sections["output"][0][1]["data_stream"] == "true"
    logstash = yaml.safe_load((SERVICES / "logstash/logstash.yml").read_text())
    assert logstash["queue.type"] == "persisted"
    assert logstash["dead_letter_queue.enable"] is True


@pytest.mark.parametrize(
    "text",
    [
        PIPELINE.rstrip()[:-1],
        PIPELINE + "}",
        PIPELINE.replace("port => 5044", "port = 5044"),
        PIPELINE.replace("port => 5044", "port => "),
        PIPELINE.replace("beats {", "beats"),
        PIPELINE.replace('"lab.request", ', '"lab.request" '),
        PIPELINE.replace("} else {", "} otherwise {"),
        PIPELINE.replace("if [event]", "if and [event]"),
        PIPELINE.replace("input {", "inputs {"),
        PIPELINE.replace("[event][id]", "[event][id"),
        PIPELINE.replace('user => "logstash_writer"', 'user => "logstash_writer'),
        "# nothing",
        PIPELINE.replace('"lab.alert"', '"lab.alert",'),
        PIPELINE.replace('"lab.request", ', '"lab.request", , '),
        PIPELINE.replace('"SHA256"\n      ', '"SHA256"'),
        PIPELINE.replace('!= "json"', "!= json"),
        PIPELINE.replace('!= "json"', '!= !"json"'),
        PIPELINE.replace("[event][id] and [error]", "[event][id] [error]"),
    ],
)
def test_the_parser_refuses_a_broken_pipeline(text):
    """The parser refuses broken pipelines, so that its acceptance proves something."""
    assert text not in (PIPELINE, "")
    with pytest.raises(SyntaxError):
        parse(text)


def test_every_reference_of_a_saved_object_resolves():
    """Dashboards name their data views at the top and in each panel, and every id is unique."""
    assert len({(saved["type"], saved["id"]) for saved in OBJECTS}) == len(OBJECTS)
    for board in DASHBOARDS:
        panels = json.loads(board["attributes"]["panelsJSON"])
        within = {
            (f"{panel['panelIndex']}:{ref['name']}", ref["id"])
            for panel in panels
            for ref in panel["embeddableConfig"]["attributes"]["references"]
        }
        assert {(ref["name"], ref["id"]) for ref in board["references"]} == within
        assert {view for _, view in within} <= set(VIEWS)
        assert all(panel["gridData"]["x"] + panel["gridData"]["w"] <= 48 for panel in panels)


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p["panelIndex"])
def test_a_panel_uses_fields_that_there_are(panel):
    """Each panel uses mapped fields that can be grouped or summed, and shows columns that it computes."""
    attributes = panel["embeddableConfig"]["attributes"]
    references = {reference["name"]: VIEWS[reference["id"]] for reference in attributes["references"]}
    state = attributes["state"]
    vis = state["visualization"]
    shown = {part["layerId"]: part for part in vis.get("layers", [vis])}
    layers = state["datasourceStates"]["formBased"]["layers"]
    assert set(layers) == {name for name, part in shown.items() if part["layerType"] != "annotations"}
    for name, layer in layers.items():
        check_layer(layer, shown[name], references.pop(f"indexpattern-datasource-layer-{name}"))
    for name, part in shown.items():
        if part["layerType"] == "annotations":
            assert references.pop(f"xy-visualization-layer-{name}") == "logs-lab.*-*"
            for annotation in part["annotations"]:
                used = {annotation["textField"], annotation["timeField"], *annotation["extraFields"]}
                assert all(FIELDS[field] != "match_only_text" for field in used)
    assert not references


def check_layer(layer, part, view):
    """The columns of a layer have mapped fields of the right type, and the panel shows all but parts of a formula."""
    known = APM_FIELDS if view == "traces-apm*" else FIELDS
    columns = layer["columns"]
    assert layer["columnOrder"] == list(columns)
    kinds = {"string": {"keyword"}, "date": {"date"}, "number": {"long", "double"}, "boolean": {"boolean"}}
    parts = {name for column in columns.values() for name in column.get("references", [])}
    for column in columns.values():
        if (name := column.get("sourceField", "___records___")) != "___records___":
            assert known[name] in kinds[column["dataType"]]
        order = column.get("params", {}).get("orderBy", {})
        assert order.get("columnId", "count") in {*columns, "count"}
        assert columns.get(order.get("columnId"), {}).get("operationType") != "last_value", "Kibana cannot sort by it"
    accessors = [part.get("xAccessor"), part.get("splitAccessor"), *part.get("accessors", [])]
    accessors += [column["columnId"] for column in part.get("columns", [])]
    assert {name for name in accessors if name} | parts == set(columns)


def test_a_trace_id_is_a_link_to_its_trace():
    """Each view of events shows a trace id as a link to the trace in Kibana's APM."""
    for saved in OBJECTS:
        if saved["type"] == "index-pattern" and saved["id"] != "lab-unreadable":
            link = json.loads(saved["attributes"]["fieldFormatMap"])["trace.id"]
            assert link == {
                "id": "url",
                "params": {"urlTemplate": "apm/link-to/trace/{{value}}", "labelTemplate": "{{value}}"},
            }


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.__name__)
def test_the_event_id_is_the_document_id(event):
    """Every event has an id on disk, and Logstash stores the event under that id, so that a repeat is no second one."""
    (name,) = [field.encode_name for field in msgspec.structs.fields(event) if field.name == "id"]
    (known,) = [settings["add_field"] for plugin, settings in parse(PIPELINE)["filter"][:1] if plugin == "mutate"]
    branch = PIPELINE[: PIPELINE.index("} else {")]
    assert f'"{event.__struct_config__.tag}"' in branch
    assert name == "event.id"
    assert known["[@metadata][id]"] == "%{[event][id]}"
    assert parse(PIPELINE)["output"][0][1]["document_id"] == "%{[@metadata][id]}"
