"""Every panel's figures over event files in DuckDB, beside figures that Python computes from the events themselves."""

from __future__ import annotations

import copy
import json
import shutil
from collections import defaultdict
from datetime import timedelta

import pytest

from lab import events
from tests import kql, panels
from tests.unit.panel_scene import METRICS, PROMISES, SCENE, START, TRACES
from tests.unit.test_elastic import APM_FIELDS, FIELDS, PANELS, RULES, VIEWS

# The length of a bucket of time in s, where Kibana would choose one.
BUCKET = 600
BY_ID = {panel["panelIndex"]: panel for panel in PANELS}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """The scene in event files. One file is there twice, as lines that Filebeat sends again."""
    folder = tmp_path_factory.mktemp("panels")
    with events.Writer(folder / "events", "api", limit=100_000) as writer:
        for event in SCENE:
            writer.write([event])
    files = sorted((folder / "events").iterdir())
    assert len(files) > 1
    shutil.copy(files[0], folder / "events" / "again.ndjson")
    (folder / "traces.json").write_text("".join(json.dumps(trace) + "\n" for trace in TRACES))
    return panels.connect(folder / "events", folder / "traces.json", FIELDS, APM_FIELDS)


def of(kind, **values):
    return [e for e in SCENE if isinstance(e, kind) and all(getattr(e, name) == each for name, each in values.items())]


def grouped(found, key, values):
    """One row for each value of `key`, a tuple, with the keys and then the `values` of its events."""
    groups = defaultdict(list)
    for each in found:
        groups[key(each)].append(each)
    return [(*group, *values(members)) for group, members in groups.items()]


def bucket(event):
    return event.timestamp.timestamp() // BUCKET * BUCKET


def seen(found):
    return max(event.timestamp for event in found).timestamp()


def latest(found):
    return max(found, key=lambda event: event.timestamp)


def percentile(values, share):
    """The percentile with linear interpolation (type 7 of Hyndman and Fan)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def counts(kind, split, scale=1.0):
    return grouped(of(kind), lambda e: (split(e), bucket(e)), lambda found: [len(found) * scale])


def percentiles(found):
    return [percentile([e.duration for e in found], share) for share in (0.5, 0.95, 0.99)]


def quality(metric):
    def row(found):
        last = latest(found)
        return [last.value, last.low, last.high, *([last.promise] if metric in PROMISES else [])]

    return grouped(of(events.Quality, metric=metric), lambda e: (e.model_version, bucket(e)), row)


def drift(*statistics):
    """The figures of each feature, and the line at the limit."""
    found = [event for event in of(events.Drift) if event.statistic in statistics]
    ratio = grouped(
        found, lambda e: (e.feature, bucket(e)), lambda es: [max(e.psi for e in es) / max(e.limit for e in es)]
    )
    return [*ratio, (1.0,)]


def fields_of_requests():
    pairs = [(event, field) for event in of(events.Request) for field in event.fields or [panels.MISSING]]
    return grouped(pairs, lambda p: (str(p[0].status), p[0].route, p[1]), lambda found: [len(found)])


def slowest():
    rows = grouped(
        of(events.Prediction),
        lambda e: (e.trace_id,),
        lambda found: [max(e.duration for e in found), seen(found), len(found)],
    )
    return sorted(rows, key=lambda row: -row[1])[:20]


def last_failed():
    rows = grouped(
        of(events.Request),
        lambda e: (e.trace_id,),
        lambda found: [latest(found).status, latest(found).route, seen(found)],
    )
    return sorted(rows, key=lambda row: -row[3])[:20]


def traced():
    found = [trace for trace in TRACES if trace["processor.event"] == "transaction"]
    start = START.timestamp()
    key = lambda t: (t["transaction.name"], (start + t["transaction.duration.us"] // 1000 * 60) // BUCKET * BUCKET)  # noqa: E731
    return grouped(found, key, lambda ts: [percentile([t["transaction.duration.us"] for t in ts], 0.95)])


def last_quality(found):
    last = latest(found)
    return [last.value, last.low, last.high, last.promise, last.count, seen(found)]


def last_drift(found):
    last = latest(found)
    return [last.psi, last.limit, last.p_value, last.count, last.drifted, seen(found)]


def decision(found):
    last = latest(found)
    return [last.decision, last.from_version, last.to_version, last.reason, seen(found)]


def score(event):
    return next(start / 10 for start in reversed(range(10)) if event.probability >= start / 10)


# What each panel shows, in the order of its columns.
EXPECTED = {
    "traffic": lambda: counts(events.Prediction, lambda e: e.source, 60 / BUCKET),
    "latency": lambda: grouped(of(events.Prediction), lambda e: (bucket(e),), percentiles),
    "refused": lambda: counts(events.Request, lambda e: str(e.status)),
    "fields": fields_of_requests,
    "hosts": lambda: grouped(SCENE, lambda e: (e.environment, e.service), lambda es: [seen(es), len(es)]),
    "events": lambda: counts(events.Event, lambda e: type(e).__struct_config__.tag),
    "slow": slowest,
    "failed": last_failed,
    "traces": traced,
    "by-version": lambda: counts(events.Prediction, lambda e: e.model_version, 60 / BUCKET),
    "by-label": lambda: counts(events.Prediction, lambda e: e.label, 60 / BUCKET),
    "probability": lambda: grouped(of(events.Prediction), lambda e: (e.model_version, score(e)), lambda es: [len(es)]),
    "feedback": lambda: counts(events.Feedback, lambda e: e.label),
    "quality": lambda: grouped(of(events.Quality), lambda e: (e.model_version, e.metric), last_quality),
    **{metric.replace("_", "-"): lambda metric=metric: quality(metric) for metric in METRICS},
    "drift": lambda: drift("feature", "score"),
    "missing": lambda: drift("missing"),
    "drift-table": lambda: grouped(of(events.Drift), lambda e: ("2", e.feature, e.statistic), last_drift),
    "decisions": lambda: grouped(of(events.Decision), lambda e: (e.number, e.model_name), decision),
    "alerts": lambda: grouped(
        of(events.Alert), lambda e: (e.kind, e.message, "tumour", e.model_version), lambda es: [seen(es), len(es)]
    ),
}


def test_no_panel_is_without_its_figures():
    """Each panel has figures that are computed from the events, and its id belongs to one panel only."""
    assert set(EXPECTED) == set(BY_ID)
    assert len(BY_ID) == len(PANELS)


@pytest.mark.parametrize("index", EXPECTED)
def test_a_panel_shows_the_figures_of_the_events(connection, index):
    """The panel's query over the event files gives the figures that Python computes from the events."""
    rows = [tuple(row.values()) for row in panels.run(connection, BY_ID[index], VIEWS, BUCKET)]
    expected = EXPECTED[index]()
    assert expected
    assert sorted(rows, key=order) == [near(row) for row in sorted(expected, key=order)]


def order(row):
    return [f"{value:.9g}" if isinstance(value, float | int) else str(value) for value in row]


def near(row):
    return tuple(pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for value in row)


def test_the_last_quality_is_the_monitors(connection):
    """The table of live quality shows the last event of each version and metric, with its interval and its count."""
    rows = panels.run(connection, BY_ID["quality"], VIEWS, BUCKET)
    assert len(rows) == 2 * len(METRICS)
    for row in rows:
        last = latest(of(events.Quality, model_version=row["version"], metric=row["metric"]))
        shown = (row["value"], row["low"], row["high"], row["promise"], row["labels"])
        assert shown == (last.value, last.low, last.high, last.promise, last.count)


def test_decisions_and_alerts_are_marked_in_the_charts(connection):
    """The charts of predictions, quality and drift mark each decision and each alert at its time, with its kind."""
    moves = [(e.timestamp.timestamp(), "Decision", e.decision) for e in of(events.Decision)]
    expected = sorted(moves + [(e.timestamp.timestamp(), "Alert", e.kind) for e in of(events.Alert)])
    marked = {index: panels.annotations(connection, panel, VIEWS) for index, panel in BY_ID.items()}
    shown = {index: rows for index, rows in marked.items() if rows}
    assert shown == dict.fromkeys(("by-version", "recall", "specificity", "drift"), expected)


CHANGES = [
    ("latency", lambda c: c["p50"].update(operationType="median")),
    ("latency", lambda c: c["p50"].update(timeShift="1d")),
    ("latency", lambda c: c["time"]["params"].update(interval="1m")),
    ("refused", lambda c: c["split"]["params"].update(include=["404"])),
    ("refused", lambda c: c["split"]["params"].update(orderBy={"type": "rare"})),
    ("fields", lambda c: c["field"]["params"].update(otherBucket=True)),
    ("drift", lambda c: c["ratioX2"]["params"]["tinymathAst"].update(name="pow")),
]


@pytest.mark.parametrize(("index", "change"), CHANGES)
def test_an_unknown_panel_is_refused(connection, index, change):
    """A panel with an operation, option or order that the translation does not know is not run."""
    panel = copy.deepcopy(BY_ID[index])
    layers = panel["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
    change(layers[f"{index}-layer"]["columns"])
    with pytest.raises(panels.UnknownPanelError):
        panels.run(connection, panel, VIEWS, BUCKET)


def test_the_rest_has_one_name(connection):
    """Terms beyond the size of a panel are counted together, in the whole panel and not in each bucket of time."""
    panel = copy.deepcopy(BY_ID["refused"])
    state = panel["embeddableConfig"]["attributes"]["state"]
    columns = state["datasourceStates"]["formBased"]["layers"]["refused-layer"]["columns"]
    columns["split"]["params"]["size"] = 1
    rows = panels.run(connection, panel, VIEWS, BUCKET)
    assert {row["split"] for row in rows} == {"422", panels.OTHER}
    assert sum(row["count"] for row in rows) == len(of(events.Request))


@pytest.mark.parametrize("query", ["a", "a:", "(a: b", "a: b c: d", "a ~ b", "a: (b or c)", 'a: "b'])
def test_an_unknown_query_is_refused(query):
    """A query of Kibana that the reader does not know is not run."""
    with pytest.raises((kql.UnknownQueryError, ValueError)):
        kql.sql(query)


@pytest.mark.parametrize("minute", range(-5, 130, 3))
def test_the_rules_alarm_when_the_events_say_so(connection, minute):
    """At each time a rule alarms when Python finds the same in the events of the rule's window."""
    found = {rule["name"]: panels.alarms(connection, rule, START.timestamp() + 60 * minute) for rule in RULES}
    failed, alert, silence = (found[rule["name"]] for rule in RULES)

    def recent(*kinds, minutes):
        ends = START + timedelta(minutes=minute)
        return [e for e in of(kinds) if ends - timedelta(minutes=minutes) < e.timestamp <= ends]

    kinds = grouped(recent(events.Alert, minutes=15), lambda e: (e.model_name, e.kind), lambda es: [len(es)])
    assert sorted(tuple(row.values()) for row in alert) == sorted(kinds)
    requests = recent(events.Prediction, events.Request, minutes=5)
    total = len({e.trace_id for e in requests})
    wrong = len({e.trace_id for e in requests if getattr(e, "status", 0) >= 500})
    expected = [(wrong, total, pytest.approx(100 * wrong / total))] if total >= 20 and wrong / total > 0.05 else []
    assert [tuple(row.values()) for row in failed] == expected
    assert bool(silence) == (not recent(events.Event, minutes=15))


def test_each_rule_alarms_at_some_time_and_not_always(connection):
    """The scene has a time with and a time without each alarm, so that the test above compares both."""
    for rule in RULES:
        times = [bool(panels.alarms(connection, rule, START.timestamp() + 60 * minute)) for minute in range(-5, 130, 3)]
        assert any(times), rule["name"]
        assert not all(times), rule["name"]
