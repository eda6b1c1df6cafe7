"""A scene of events and traces, for the tests of Kibana's panels."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from lab import events

START = datetime(2026, 11, 27, 9, tzinfo=UTC)
METRICS = ("recall", "specificity", "precision", "accuracy", "brier", "roc_auc", "prevalence")
PROMISES = {"recall": 0.95, "specificity": 0.9}


def scene():
    """The events of 90 minutes: two versions, failed requests, labels, quality, drift, a rollback, and alerts."""
    chance, result = random.Random(12), []

    def add(kind, seconds, /, service="api", environment="laptop", **values):
        time, number = START + timedelta(seconds=seconds), len(result)
        about = {"timestamp": time, "id": f"e{number}", "service": service, "environment": environment}
        result.append(kind(**about, trace_id=f"t{number // 2}", **values))

    for _ in range(800):
        label, version = chance.choice(["benign", "malignant"]), chance.choice("12")
        source, score = chance.choice(["client", "demo"]), chance.choice([0.0, 0.1, 0.5, 1.0, chance.random()])
        about = {"model_name": "tumour", "model_version": version, "duration": chance.randrange(10**5, 10**8)}
        values = {
            "source": source,
            "label": label,
            "probability": score,
            "threshold": 0.5,
            "features": {"a": 1, "b": None},
        }
        add(events.Prediction, chance.uniform(0, 5400), environment=chance.choice(["laptop", ""]), **about, **values)
    for _ in range(120):
        status, fields = chance.choice([(422, ["a"]), (422, ["a", "b"]), (404, []), (500, []), (503, [])])
        route = chance.choice(["/predict", "/predict/batch"])
        about = {"duration": 10**6, "method": "POST", "route": route, "status": status, "fields": fields}
        add(events.Request, chance.uniform(0, 5400), **about)
    for _ in range(200):
        label = chance.choice(["benign", "malignant"])
        add(events.Feedback, chance.uniform(0, 5400), prediction_id="p", label=label)
    for minute, version, metric in [(m, v, name) for m in range(0, 90, 3) for v in "12" for name in METRICS]:
        value = chance.random()
        about = {
            "model_name": "tumour",
            "model_version": version,
            "metric": metric,
            "value": value,
            "count": 10 + minute,
        }
        limits = {"low": value - 0.1, "high": value + 0.1, "promise": PROMISES.get(metric)}
        add(events.Quality, 60 * minute + METRICS.index(metric), service="monitor", **about, **limits)
    for feature, statistic in [
        ("a", "feature"),
        ("b", "feature"),
        ("score", "score"),
        ("a", "missing"),
        ("b", "missing"),
    ]:
        for hour in (0, 1):
            psi = chance.random()
            about = {
                "model_name": "tumour",
                "model_version": "2",
                "feature": feature,
                "statistic": statistic,
                "psi": psi,
            }
            values = {"limit": 0.4, "p_value": 0.01, "count": 200, "drifted": psi > 0.4}
            add(events.Drift, 3600 * hour + 7, service="monitor", **about, **values)
    move = {"model_name": "tumour", "from_version": 2, "to_version": 1, "reason": "the promise broke"}
    add(events.Decision, 10, service="trainer", decision="promoted", number=1, **{**move, "from_version": None})
    add(events.Decision, 5000, service="monitor", decision="rolled_back", number=2, **move)
    for seconds, kind, version in [
        (4990, "promise_broken", "2"),
        (5001, "rolled_back", "2"),
        (5002, "rolled_back", "2"),
    ]:
        about = {"model_name": "tumour", "model_version": version, "kind": kind, "message": f"{kind} {version}"}
        add(events.Alert, seconds, service="monitor", **about)
    return result


SCENE = scene()
TRACES = [
    {"@timestamp": f"2026-11-27T09:{n:02}:00Z", "processor.event": kind, "transaction.name": f"POST {n % 2}",
     "transaction.duration.us": n * 1000}
    for n in range(40) for kind in ("transaction", "span")
]  # fmt: skip
