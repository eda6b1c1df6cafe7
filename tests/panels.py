"""The queries of Kibana's panels and alert rules over event files, in DuckDB.

Kibana translates a Lens panel into an Elasticsearch aggregation. This module translates the same panel into SQL, so
that a panel's figures can be compared with figures from the events themselves. It refuses a panel with anything that it
does not know. A percentile is exact here, and an estimate in Elasticsearch (t-digest).
"""

# ruff: noqa: S608 - the queries come from this repository, and names and values are quoted.

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from tests import kql
from tests.kql import name, text

TYPES = {"keyword": "VARCHAR", "date": "TIMESTAMP", "long": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN"}
# A field whose values are arrays; Elasticsearch's mappings do not say so.
ARRAYS = ("lab.fields",)
COLUMN_KEYS = {"label", "customLabel", "dataType", "operationType", "sourceField", "isBucketed", "scale", "params"}
COLUMN_KEYS |= {"filter", "timeScale", "references", "isStaticValue"}
PLAIN = {"max": "max", "min": "min", "average": "avg", "sum": "sum"}
ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
OTHER, MISSING = "Other", "(missing value)"


class UnknownPanelError(Exception):
    """The panel or rule has a part that this module does not know."""


def connect(folder: Path, traces: Path, fields: Mapping[str, str], trace_fields: Mapping[str, str]) -> Any:
    """A connection with the documents of the event files as `events`, and those of a file of traces as `traces`.

    The types are those of Elasticsearch's mappings. One event id is one document, however often its line was sent.
    """
    connection = duckdb.connect()
    columns = {field: TYPES[kind] for field, kind in fields.items() if kind in TYPES and field != "message.keyword"}
    columns |= dict.fromkeys(ARRAYS, "VARCHAR[]") | {"message": "VARCHAR"}
    _table(connection, "lines", str(folder / "*.ndjson"), columns)
    connection.execute(
        'CREATE TABLE events AS SELECT DISTINCT ON ("event.id") *, message AS "message.keyword" FROM lines'
    )
    _table(connection, "traces", str(traces), {field: TYPES[kind] for field, kind in trace_fields.items()})
    return connection


def _table(connection: Any, table: str, files: str, columns: dict[str, str]) -> None:
    shape = ", ".join(f"{text(field)}: {text(kind)}" for field, kind in columns.items())
    source = f"read_json({text(files)}, format = 'newline_delimited', columns = {{{shape}}})"
    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM {source}")


def documents(title: str) -> str:
    """The documents of an index pattern, as a query."""
    if title == "traces-apm*":
        return "SELECT * FROM traces"
    pattern = re.escape(title).replace(r"\*", ".*")
    return (
        f"""SELECT * FROM events WHERE regexp_full_match('logs-' || "event.dataset" || '-default', {text(pattern)})"""
    )


def run(connection: Any, panel: dict[str, Any], views: Mapping[str, str], seconds: int) -> list[dict[str, Any]]:
    """The rows of a panel by its columns' ids; a bucket of time has `seconds` and is named by its start, in epoch s."""
    attributes = panel["embeddableConfig"]["attributes"]
    state = attributes["state"]
    if attributes["visualizationType"] not in ("lnsXY", "lnsDatatable") or state["filters"]:
        raise UnknownPanelError(panel["panelIndex"])
    references = {reference["name"]: views[reference["id"]] for reference in attributes["references"]}
    rows: list[dict[str, Any]] = []
    for layer, content in state["datasourceStates"]["formBased"]["layers"].items():
        columns = content["columns"]
        if all(column["operationType"] == "static_value" for column in columns.values()):
            rows.append({key: float(column["params"]["value"]) for key, column in columns.items()})
            continue
        source = documents(references[f"indexpattern-datasource-layer-{layer}"])
        source = f"SELECT * FROM ({source}) WHERE {kql.sql(state['query']['query'])}"
        cursor = connection.execute(_Layer(columns, seconds).query(source))
        names = [entry[0] for entry in cursor.description]
        rows += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return rows


def annotations(connection: Any, panel: dict[str, Any], views: Mapping[str, str]) -> list[tuple[float, str, Any]]:
    """The time, the label and the text of each annotation of a panel, in the order of time."""
    attributes = panel["embeddableConfig"]["attributes"]
    references = {reference["name"]: views[reference["id"]] for reference in attributes["references"]}
    rows: list[tuple[float, str, Any]] = []
    for layer in attributes["state"]["visualization"].get("layers", []):
        if layer["layerType"] == "annotations":
            source = documents(references[f"xy-visualization-layer-{layer['layerId']}"])
            for each in layer["annotations"]:
                shown = f"epoch({name(each['timeField'])}), {text(each['label'])}, {name(each['textField'])}"
                query = f"SELECT {shown} FROM ({source}) WHERE {kql.sql(each['filter']['query'])}"
                rows += connection.execute(query).fetchall()
    return sorted(rows)


class _Layer:
    """The columns of a layer, and its buckets of time in seconds."""

    def __init__(self, columns: dict[str, Any], seconds: int) -> None:
        self.columns, self.seconds = columns, seconds
        for key, column in columns.items():
            if column.keys() - COLUMN_KEYS:
                raise UnknownPanelError(f"{key}: {sorted(column.keys() - COLUMN_KEYS)}")

    def query(self, source: str) -> str:
        buckets: list[str] = []
        for key, column in self.columns.items():
            if column["isBucketed"]:
                source = self.bucketed(source, key, column, buckets)
                buckets.append(key)
        hidden = {part for column in self.columns.values() for part in column.get("references", [])}
        shown = [key for key, column in self.columns.items() if not column["isBucketed"] and key not in hidden]
        metrics = [f"{self.metric(key)} AS {name(key)}" for key in shown]
        groups = [name(f"b_{key}") for key in buckets]
        selected = [f"{group} AS {name(key)}" for group, key in zip(groups, buckets, strict=True)] + metrics
        return f"SELECT {', '.join(selected)} FROM ({source})" + (f" GROUP BY {', '.join(groups)}" if groups else "")

    def bucketed(self, source: str, key: str, column: dict[str, Any], parents: list[str]) -> str:
        """The documents with one more column, the bucket, whose name begins with b_."""
        field, bucket = name(column["sourceField"]), name(f"b_{key}")
        if column["operationType"] == "date_histogram" and column["params"]["interval"] == "auto":
            start = f"floor(epoch({field}) / {self.seconds}) * {self.seconds}"
            return f"SELECT *, {start} AS {bucket} FROM ({source})"
        if column["operationType"] == "range" and column["params"]["type"] == "range":
            cases = [_range(field, each) for each in column["params"]["ranges"]]
            source = f"SELECT *, CASE {' '.join(cases)} END AS {bucket} FROM ({source})"
            return f"SELECT * FROM ({source}) WHERE {bucket} IS NOT NULL"
        if column["operationType"] != "terms":
            raise UnknownPanelError(f"{key}: {column['operationType']}")
        return self.terms(source, key, column, parents)

    def terms(self, source: str, key: str, column: dict[str, Any], parents: list[str]) -> str:
        params, field, bucket = column["params"], name(column["sourceField"]), name(f"b_{key}")
        if params["include"] or params["exclude"]:
            raise UnknownPanelError(f"{key}: include or exclude")
        if column["sourceField"] in ARRAYS:
            if params["otherBucket"]:
                raise UnknownPanelError(f"{key}: the rest of an array")
            empty = "[NULL]" if params["missingBucket"] else "[]"
            values = f"CASE WHEN len({field}) > 0 THEN list_distinct({field}) ELSE {empty} END"
            source = f"SELECT *, unnest({values}) AS {bucket} FROM ({source})"
        else:
            source = f"SELECT *, {field} AS {bucket} FROM ({source})"
        if params["missingBucket"]:
            shown = f"coalesce(CAST({bucket} AS VARCHAR), {text(MISSING)})"
            source = f"SELECT * REPLACE ({shown} AS {bucket}) FROM ({source})"
        source = f"SELECT * FROM ({source}) WHERE {bucket} IS NOT NULL"
        groups = ", ".join(name(f"b_{parent}") for parent in parents)
        return self.largest(source, bucket, groups, params)

    def largest(self, source: str, bucket: str, groups: str, params: dict[str, Any]) -> str:
        """The documents of the largest terms within their parent buckets, and of the others under one name."""
        order = params["orderBy"]
        if order["type"] not in ("column", "alphabetical"):
            raise UnknownPanelError(f"order by {order['type']}")
        by = bucket if order["type"] == "alphabetical" else self.metric(order["columnId"])
        within = f"PARTITION BY {groups}" if groups else ""
        keys = f"{groups}, {bucket}" if groups else bucket
        ranked = f"row_number() OVER ({within} ORDER BY {by} {params['orderDirection']}, {bucket}) AS place"
        ranks = f"SELECT {keys}, {ranked} FROM ({source}) GROUP BY {keys}"
        joined = f"SELECT * FROM ({source}) JOIN ({ranks}) USING ({keys})"
        if params["otherBucket"]:
            value = f"CASE WHEN place <= {params['size']} THEN CAST({bucket} AS VARCHAR) ELSE {text(OTHER)} END"
            return f"SELECT * EXCLUDE (place) REPLACE ({value} AS {bucket}) FROM ({joined})"
        return f"SELECT * EXCLUDE (place) FROM ({joined}) WHERE place <= {params['size']}"

    def metric(self, key: str) -> str:
        """The expression of a metric."""
        column = self.columns[key]
        kind, params = column["operationType"], column["params"]
        if kind == "formula":
            (reference,) = column["references"]
            return self.metric(reference)
        if kind == "math":
            return self.math(params["tinymathAst"])
        condition = f" FILTER (WHERE {kql.sql(column['filter']['query'])})" if "filter" in column else ""
        field = name(column["sourceField"])
        if column["dataType"] == "date":
            field = f"epoch({field})"
        if kind == "count":
            scale = {None: "", "m": f" * 60.0 / {self.seconds}"}[column.get("timeScale")]
            return f"count(*){condition}{scale}"
        if kind == "percentile":
            return f"quantile_cont({field}, {params['percentile'] / 100}){condition}"
        if kind == "last_value" and not params["showArrayValues"]:
            return f"arg_max({field}, {name(params['sortField'])}){condition}"
        if kind in PLAIN:
            return f"{PLAIN[kind]}({field}){condition}"
        raise UnknownPanelError(f"{key}: {kind}")

    def math(self, part: Any) -> str:
        if isinstance(part, str):
            return self.metric(part)
        if isinstance(part, int | float):
            return str(part)
        if part["type"] != "function" or part["name"] not in ARITHMETIC:
            raise UnknownPanelError(str(part))
        return "(" + f" {ARITHMETIC[part['name']]} ".join(self.math(each) for each in part["args"]) + ")"


def _range(field: str, each: dict[str, Any]) -> str:
    """A range includes its start and not its end; None is no limit."""
    start = "true" if each["from"] is None else f"{field} >= {each['from']}"
    end = "true" if each["to"] is None else f"{field} < {each['to']}"
    return f"WHEN {start} AND {end} THEN CAST({each['from']} AS DOUBLE)"


def alarms(connection: Any, rule: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """What a rule finds in its window of time before `now`, in epoch s; a rule that finds nothing raises no alarm."""
    params = rule["params"]
    if rule["rule_type_id"] != ".es-query":
        raise UnknownPanelError(rule["rule_type_id"])
    window = params["timeWindowSize"] * {"s": 1, "m": 60, "h": 3600}[params["timeWindowUnit"]]
    recent = f"epoch({name(params['timeField'])}) > {now - window} AND epoch({name(params['timeField'])}) <= {now}"
    if params["searchType"] == "esqlQuery":
        query = esql(params["esqlQuery"]["esql"], recent)
    else:
        if json.loads(params["esQuery"]) != {"query": {"match_all": {}}}:
            raise UnknownPanelError(params["esQuery"])
        source = " UNION ALL ".join(documents(index) for index in params["index"])
        terms = [params["termField"]] if isinstance(params.get("termField"), str) else params.get("termField", [])
        groups = ", ".join(name(term) for term in terms if params["groupBy"] == "top")
        query = f"SELECT {groups + ', ' if groups else ''}count(*) AS count FROM ({source}) WHERE {recent}"
        query += f" GROUP BY {groups}" if groups else ""
        query += f" HAVING count(*) {params['thresholdComparator']} {params['threshold'][0]}"
    cursor = connection.execute(query)
    names = [entry[0] for entry in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def esql(query: str, recent: str) -> str:
    """A query of ES|QL with FROM, EVAL, STATS and WHERE as SQL over the documents for which `recent` holds."""
    first, *steps = [step.strip() for step in query.split("|")]
    if not first.startswith("FROM "):
        raise UnknownPanelError(first)
    patterns = [pattern.strip() for pattern in first.removeprefix("FROM ").split(",")]
    source = f"SELECT * FROM ({' UNION ALL '.join(documents(pattern) for pattern in patterns)}) WHERE {recent}"
    for step in steps:
        command, _, rest = step.partition(" ")
        if command == "WHERE":
            source = f"SELECT * FROM ({source}) WHERE {_expression(rest)}"
        elif command == "EVAL":
            key, _, value = rest.partition(" = ")
            source = f"SELECT *, {_expression(value)} AS {key} FROM ({source})"
        elif command == "STATS":
            parts = [part.partition(" = ") for part in re.split(r",\s*(?=\w+ = )", rest)]
            source = f"SELECT {', '.join(f'{_aggregate(value)} AS {key}' for key, _, value in parts)} FROM ({source})"
        else:
            raise UnknownPanelError(step)
    return source


def _aggregate(value: str) -> str:
    match = re.fullmatch(r"COUNT_DISTINCT\((\w+)\)(?: WHERE (.*))?", value.strip())
    if not match:
        raise UnknownPanelError(value)
    return f"count(DISTINCT {match[1]})" + (f" FILTER (WHERE {_expression(match[2])})" if match[2] else "")


def _expression(value: str) -> str:
    value = value.strip()
    if match := re.fullmatch(r"CASE\(([^,]*), ([^,]*), ([^,]*)\)", value):
        condition, then, otherwise = map(_expression, match.groups())
        return f"CASE WHEN {condition} THEN {then} ELSE {otherwise} END"
    if not re.fullmatch(r'[\w.\s"!=<>*/+-]*', value):
        raise UnknownPanelError(value)
    value = re.sub(r'"([^"]*)"', r"'\1'", value)
    return re.sub(r"\b[a-z_]+(?:\.[a-z_]+)+\b", lambda found: name(found[0]), value)
