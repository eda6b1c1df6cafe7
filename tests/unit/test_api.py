"""The answers and the events of the API, without a registry."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from api import create_app
from api.alerts import Alerts
from api.connections import CONNECTIONS
from api.embed_model import embed
from api.trace import TraceFilter, trace_id
from lab.errors import LabError
from lab.events import Writer
from lab.registry import Version
from lab.retention import is_open
from lab.settings import ROOT
from tests.recorded import written

GOOD = {"a": 1, "b": 0.5}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def recorded(settings) -> list[dict]:
    return written(Path(settings["EVENTS_DIR"]))


def test_a_prediction_is_recorded_as_answered(client, settings):
    """The event has the id, version, features, probability and label of the answer, the duration, and the caller's
    trace.
    """
    answer = client.post("/predict", json=GOOD, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert answer.status_code == 200
    (event,) = recorded(settings)
    assert event["event.dataset"] == "lab.prediction"
    assert event["trace.id"] == TRACE
    assert event["lab.features"] == GOOD
    assert (event["labels.model_name"], event["labels.model_version"]) == ("small", "7")
    assert event["event.duration"] > 0
    for ours, theirs in (("id", "event.id"), ("label", "lab.label"), ("probability", "lab.probability")):
        assert answer.json[ours] == event[theirs]
    assert event["event.id"][14] == "7", "UUIDv7"


def test_a_batch_is_recorded_row_by_row(client, settings):
    """Each row of a batch has one event, with the id in the answer."""
    answer = client.post("/predict/batch", json={"instances": [GOOD, {"a": -3}]})
    assert [p["id"] for p in answer.json["predictions"]] == [e["event.id"] for e in recorded(settings)]
    assert [e["lab.features"] for e in recorded(settings)] == [GOOD, {"a": -3}]


def test_feedback_is_accepted_and_recorded(client, settings):
    """Every feedback is recorded, also a repeated or contradicting one, because the monitor decides about these."""
    prediction = client.post("/predict", json=GOOD).json["id"]
    for label in ("yes", "yes", "no"):
        assert client.post("/feedback", json={"prediction_id": prediction, "label": label}).status_code == 202
    records = [(e["lab.prediction_id"], e["lab.label"]) for e in recorded(settings) if "lab.prediction_id" in e]
    assert records == [(prediction, "yes"), (prediction, "yes"), (prediction, "no")]


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({"path": "/predict", "method": "POST", "json": {"a": 99}}, 422),
        ({"path": "/predict", "method": "POST", "data": b"{", "content_type": "application/json"}, 400),
        ({"path": "/predict", "method": "POST", "data": b'{"a": 1}', "content_type": "text/plain"}, 415),
        ({"path": "/predict", "method": "POST", "data": b'{"a": 1}'}, 415),
        ({"path": "/predict", "method": "POST", "data": b" " * 70_000, "content_type": "application/json"}, 413),
        ({"path": "/predict", "method": "GET"}, 405),
        ({"path": "/nothing", "method": "GET"}, 404),
        ({"path": "/docs/../__init__.py", "method": "GET"}, 404),
    ],
)
def test_what_fails_is_a_problem(client, settings, call, status):
    """A failed request gets a problem (RFC 9457) with its trace, and an event."""
    answer = client.open(**call)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json["status"] == status
    (event,) = recorded(settings)
    assert (event["event.dataset"], event["http.response.status_code"]) == ("lab.request", status)
    assert event["trace.id"] == answer.json["trace_id"]
    assert event["lab.fields"] == (["a"] if status == 422 else [])
    if status == 405:
        assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("source", ["client", "dashboard", "loadtest", "demo"])
def test_events_say_where_a_request_comes_from_and_which_lab_wrote_them(settings, source):
    """Each event has the value of X-Client, or `client` without the header, and the environment of the lab."""
    client = create_app({**settings, "ENVIRONMENT": "staging"}).test_client()
    headers = {} if source == "client" else {"X-Client": source}
    prediction = client.post("/predict", json=GOOD, headers=headers).json["id"]
    client.post("/feedback", json={"prediction_id": prediction, "label": "yes"}, headers=headers)
    client.post("/predict", json={}, headers=headers)
    sources = [(event["labels.source"], event["service.environment"]) for event in recorded(settings)]
    assert sources == [(source, "staging")] * 3


@pytest.mark.parametrize("value", ["", "client", "Dashboard", "demo, demo", "Jane"])
def test_an_unknown_client_is_refused_and_does_not_pass_for_a_patient(client, settings, value):
    """An unknown X-Client gets 400 with the known values, as in the OpenAPI document, and is not recorded."""
    answer = client.post("/predict", json=GOOD, headers={"X-Client": value})
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    (event,) = recorded(settings)
    assert (event["event.dataset"], event["labels.source"]) == ("lab.request", "unknown")
    (header,) = client.get("/openapi.json").json["paths"]["/predict"]["post"]["parameters"]
    assert header["name"] == "X-Client"
    assert all(name in answer.json["detail"] for name in header["schema"]["enum"])


def test_workers_write_one_alert_for_each_version_and_reason(tmp_path):
    """Twenty workers write one alert, also after a restart; another reason or a failing version is another alert."""

    def find(_: int) -> None:
        writer = Writer(tmp_path / "events", "api")
        alerts = Alerts(writer, "laptop", tmp_path / "keep", "small")
        alerts.refused(5, "cut")
        alerts.refused(5, "hostile")
        alerts.failing(5, "nan")
        alerts.failing(5, "2.0")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(find, range(20)))
    find(0)
    kinds = sorted(event["lab.kind"] for event in written(tmp_path / "events"))
    assert kinds == ["model_failing", "model_refused", "model_refused"]


def test_no_name_that_a_client_sends_is_recorded(client, settings):
    """The answer has the name of an unknown field and the event has not, because it may be the name of a person."""
    answer = client.post("/predict?who=Jane", json={"a": 1, "Jane Doe": 2})
    assert "Jane" in answer.text
    client.get("/Jane")
    assert all("Jane" not in str(event) for event in recorded(settings))


def test_without_a_model_it_is_alive_and_not_ready(settings):
    """Without a model /healthz answers, and routes that need one answer 503 with the reason."""
    client = create_app({**settings, "MODEL_NAME": "other"}).test_client()
    assert client.get("/healthz").status_code == 200
    for answer in (client.get("/readyz"), client.get("/openapi.json"), client.post("/predict", json=GOOD)):
        assert answer.status_code == 503
        assert "127.0.0.1:9" in answer.json["detail"] or "not asked yet" in answer.json["detail"]


def test_a_kept_model_that_was_altered_is_not_served(settings):
    """A stored model is verified like any other."""
    path = Path(settings["KEEP_DIR"]) / "small.msgpack"
    body = bytearray(path.read_bytes())
    body[-10] ^= 1
    for altered in (bytes(body), b"", bytes(body[:100])):
        path.write_bytes(altered)
        assert create_app(settings).test_client().get("/readyz").status_code == 503


def test_what_another_worker_kept_is_served(settings, tmp_path):
    """A worker without a sound champion serves the model that another worker stores, also after its own start."""
    path = tmp_path / "keep" / "small.msgpack"
    path.rename(tmp_path / "elsewhere")
    app = create_app(settings)
    follower = app.extensions["follower"]
    assert follower.model is None
    (tmp_path / "elsewhere").rename(path)
    follower.poll()
    assert app.test_client().post("/predict", json=GOOD).status_code == 200


@pytest.fixture
def image(settings, package, tmp_path) -> dict[str, str]:
    """The settings of a released image: no stored model, and version 3 inside the image."""
    card_values, onnx = package
    Path(settings["KEEP_DIR"], "small.msgpack").rename(tmp_path / "kept")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "card.json").write_bytes(msgspec.json.encode(card_values))
    (tmp_path / "package" / "model.onnx").write_bytes(onnx)
    (tmp_path / "package" / "version").write_text("3\n")
    embed(tmp_path / "package", tmp_path / "baked")
    return {**settings, "PACKAGE_DIR": str(tmp_path / "baked")}


def test_a_released_image_serves_what_it_was_built_with(image):
    """Without a registry and a stored model, the image serves its own model."""
    answer = create_app(image).test_client().post("/predict", json=GOOD)
    assert answer.json["model"]["version"] == 3


def test_what_was_kept_comes_before_what_was_baked(image, tmp_path):
    """The stored model is served, because it is newer; when it is not sound, the model in the image is served."""
    path = Path(image["KEEP_DIR"], "small.msgpack")
    (tmp_path / "kept").rename(path)
    assert create_app(image).test_client().get("/readyz").json["version"] == 7
    path.write_bytes(path.read_bytes()[:100])
    assert create_app(image).test_client().get("/readyz").json["version"] == 3


def test_no_unsound_package_is_baked(image, tmp_path):
    """No image is built with an unsound package, because it could not start; without a package nothing is added."""
    model = tmp_path / "package" / "model.onnx"
    whole = model.read_bytes()
    for altered in (whole[:-9], None):
        model.unlink()
        if altered is not None:
            model.write_bytes(altered)
        with pytest.raises(LabError):
            embed(tmp_path / "package", tmp_path / "other")
        model.touch()
    model.write_bytes(whole)
    (tmp_path / "package" / "version").write_text("latest")
    with pytest.raises(LabError):
        embed(tmp_path / "package", tmp_path / "other")
    (tmp_path / "empty").mkdir()
    assert embed(tmp_path / "empty", tmp_path / "other") is None
    assert not list((tmp_path / "other").iterdir())


def test_a_kept_model_of_another_registry_is_replaced(settings, package):
    """The card of a stored model is compared once, because another registry may use the same number."""
    app = create_app(settings)
    follower = app.extensions["follower"]
    card_values, onnx = package
    other = msgspec.json.encode({**card_values, "title": "Another"})

    class Other:
        model, requests = "small", 0

        def champion(self):
            return Version("small", 7, "", "", {})

        def download(self, _):
            self.requests += 1
            return other, onnx

    follower.registry = Other()
    for _ in range(3):
        follower.poll()
    assert follower.model.card.title == "Another"
    assert follower.registry.requests == 2, "to compare, and to serve"


def test_the_key_is_asked_for(settings):
    """Without the key every route answers 401, except the probes and the documentation."""
    client = create_app({**settings, "API_KEY": "sesame"}).test_client()
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": "sésame"}):
        refusals = client.post("/predict", json=GOOD, headers=headers)
        assert refusals.status_code == 401
        assert refusals.headers["WWW-Authenticate"]
        assert client.get("/model", headers=headers).status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 401
    assert client.post("/predict", json=GOOD, headers={"X-API-Key": "sesame"}).status_code == 200
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200
    assert client.get("/openapi.json").json["security"] == [{"key": []}]


def test_the_document_has_the_names_and_bounds_of_the_card(client):
    """The OpenAPI document has the names and bounds of the card, and nullable features are optional."""
    schema = client.get("/openapi.json").json["components"]["schemas"]["Record"]
    assert schema["required"] == ["a"]
    assert schema["properties"]["a"] == {"title": "x", "type": "integer", "minimum": -9, "maximum": 9}
    assert schema["properties"]["b"]["type"] == ["number", "null"]
    assert schema["additionalProperties"] is False


def test_the_page_needs_no_internet(client):
    """Every address in the page is of this API, and answers."""
    page = client.get("/docs")
    assert "http" not in page.text.replace("<!doctype html>", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page.text
        answer = client.get(f"/docs/{name}")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_answers_carry_security_headers(client):
    """No answer may be stored, guessed in its type, or framed."""
    for answer in (client.post("/predict", json=GOOD), client.get("/nothing")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_metrics_count_what_was_done(client):
    """The metrics count requests by route and status with their latency, and predictions by label and version."""
    client.post("/predict/batch", json={"instances": [{"a": 9}, {"a": -9}, {"a": 9}]})
    client.post("/predict", json={})
    client.get("/Jane")
    text = client.get("/metrics").text
    for line in (
        'lab_requests_total{route="/predict/batch",status="200"} 1.0',
        'lab_requests_total{route="/predict",status="422"} 1.0',
        'lab_requests_total{route="other",status="404"} 1.0',
        'lab_request_seconds_count{route="/predict",status="422"} 1.0',
        'lab_predictions_total{label="yes",version="7"} 2.0',
        'lab_predictions_total{label="no",version="7"} 1.0',
        "lab_model_swaps_total 1.0",
        "lab_model_refusals_total 0.0",
    ):
        assert line in text
    assert "lab_model_age_seconds{worker=" in text


def test_a_folder_that_cannot_be_written_is_503_and_no_prediction(settings, tmp_path):
    """A prediction that cannot be recorded is a 503, and the API recovers by itself."""
    blocker = tmp_path / "blocked"
    blocker.write_text("a file where the folder should be")
    client = create_app({**settings, "EVENTS_DIR": str(blocker)}).test_client()
    for path, body in (("/predict", GOOD), ("/predict/batch", {"instances": [GOOD]})):
        answer = client.post(path, json=body)
        assert answer.status_code == 503
        assert "not recorded" in answer.json["detail"]
    assert client.get("/readyz").status_code == 200
    blocker.unlink()
    assert client.post("/predict", json=GOOD).status_code == 200


def test_log_lines_carry_the_trace():
    """Log lines have the trace id within a request, and only there."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "said", None, None)
    token = trace_id.set(TRACE)
    assert TraceFilter().filter(record)
    trace_id.reset(token)
    assert record.__dict__["trace.id"] == TRACE


def test_the_log_configuration_is_ecs():
    """All log lines are in ECS, also those of Granian."""
    config = msgspec.json.decode((Path(__file__).parents[2] / "api" / "logging.json").read_bytes())
    assert config["formatters"]["ecs"]["()"] == "ecs_logging.StdlibFormatter"
    assert set(config["loggers"]) >= {"_granian", "granian.access"}


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        *((host, "/model", 200) for host in ("127.0.0.1", "127.0.0.1:1", "LOCALHOST:8000", "localhost.", "[::1]:8000")),
        *((host, "/model", 200) for host in ("127.9.9.9", "api:8000", "models.example", "Models.Example:443")),
        *((host, "/model", 421) for host in ("evil.example", "10.0.1.23:8000", "[2001:db8::1]", "localhost.evil")),
        *((host, "/model", 400) for host in ("", "a b", "u@127.0.0.1", "127.0.0.1, 127.0.0.1", "[::1", "127.0.0.1:x")),
        *((host, "/healthz", 200) for host in ("evil.example", "10.0.1.23:8000")),
        ("10.0.1.23:8000", "/readyz", 200),
        ("evil.example", "/readyz", 421),
        ("evil.example", "/openapi.json", 421),
        ("evil.example", "/docs/start.js", 421),
    ],
)
def test_only_names_of_its_own_are_answered(settings, host, path, status):
    """A foreign host name (DNS rebinding) is refused, and the probes of a load balancer are answered."""
    client = create_app({**settings, "ALLOWED_HOSTS": "api, models.example"}).test_client()
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.content_type == "application/problem+json"
        (event,) = recorded(settings)
        assert event["http.response.status_code"] == status
        line = f'lab_requests_total{{route="{path if path != "/docs/start.js" else "other"}",status="{status}"}} 1.0'
        assert line in client.get("/metrics").text


def test_a_foreign_name_posts_nothing(client, settings):
    """A request under a foreign host name causes neither a prediction nor a feedback."""
    for path in ("/predict", "/predict/batch", "/feedback"):
        answer = client.post(path, json=GOOD, headers={"Host": "evil.example"})
        assert answer.status_code == 421
        assert "ALLOWED_HOSTS" in answer.json["detail"]
    assert {event["event.dataset"] for event in recorded(settings)} == {"lab.request"}


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({"path": "//predict", "method": "POST", "json": GOOD}, 404),
        ({"path": "///feedback", "method": "POST", "json": GOOD}, 404),
        ({"path": "/%2Fpredict", "method": "POST", "json": GOOD}, 404),
        ({"path": "/predict/", "method": "POST", "json": GOOD}, 404),
        ({"path": "/docs/%00", "method": "GET"}, 404),
        ({"path": "/docs/..%2f..%2fapi/apm.py", "method": "GET"}, 404),
        ({"path": "/predict", "method": "POST", "json": GOOD, "headers": {"Content-Encoding": "gzip"}}, 415),
        ({"path": "/predict", "method": "TRACE"}, 405),
        ({"path": "/predict", "method": "X" * 5000}, 405),
        ({"path": "/nothing", "method": "OPTIONS"}, 404),
    ],
)
def test_what_is_odd_is_refused_and_recorded(client, settings, call, status):
    """An odd request gets a problem, an event and a count."""
    path = call.pop("path")
    answer = client.open("/", environ_overrides={"PATH_INFO": unquote(path)}, **call)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    (event,) = recorded(settings)
    assert event["http.response.status_code"] == status
    route = path if path == "/predict" else "other"
    assert f'lab_requests_total{{route="{route}",status="{status}"}} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("date", ["Mon, 01 Jan 100000000000000000000 00:00:00 GMT", "x", "Fri, 01 Jan 2100 0:0:0 GMT"])
def test_a_date_changes_nothing(client, date):
    """Files of the page are sent whole, whatever version the client claims to have."""
    answer = client.get("/docs/start.js", headers={"If-Modified-Since": date, "If-Range": date, "Range": "bytes=0-1"})
    assert answer.status_code == 200
    assert answer.data == (Path(__file__).parents[2] / "api" / "docs" / "start.js").read_bytes()


def test_options_tells_the_methods_and_grants_nothing(client, settings):
    """The answer to OPTIONS has no content and no header that allows a page of another origin."""
    headers = {"Origin": "http://127.0.0.1:9999", "Access-Control-Request-Method": "POST"}
    for path, methods in (("/feedback", {"POST", "OPTIONS"}), ("/model", {"GET", "HEAD", "OPTIONS"})):
        answer = client.options(path, headers={**headers, "Access-Control-Request-Headers": "content-type"})
        assert (answer.status_code, answer.data) == (204, b"")
        assert set(answer.headers["Allow"].split(", ")) == methods
        assert "Content-Type" not in answer.headers
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert recorded(settings) == []


def test_metrics_are_answered_on_a_full_disk(settings, tmp_path):
    """The counts of this worker are in its memory, so they are answered on a full disk."""
    (tmp_path / "full").write_text("a file where the folder should be")
    client = create_app({**settings, "METRICS_DIR": str(tmp_path / "full")}).test_client()
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert 'lab_requests_total{route="other",status="404"} 1.0' in answer.text


def test_a_fault_of_the_api_is_recorded(app, settings, monkeypatch):
    """A fault before Flask can answer is also a problem, an event and a count."""
    monkeypatch.setattr(type(app), "create_url_adapter", lambda *_: 1 / 0)
    client = app.test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    monkeypatch.undo()
    (event,) = recorded(settings)
    assert (event["http.response.status_code"], event["trace.id"]) == (500, answer.json["trace_id"])
    assert 'lab_requests_total{route="/healthz",status="500"} 1.0' in client.get("/metrics").text


def test_the_limit_of_connections_is_the_one_of_the_command():
    """The limit in the log is the one in the command of the server."""
    assert f"--backpressure {CONNECTIONS} " in (ROOT / "services" / "supervisord.conf").read_text()


def test_close_ends_what_create_app_started(settings):
    """After `close` no thread is left, the last counts are on disk, and the event file is closed."""
    before = set(threading.enumerate())
    app = create_app(settings)
    assert app.test_client().post("/predict", json=GOOD).status_code == 200
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"follower", "metrics"}
    (path,) = Path(settings["EVENTS_DIR"]).glob("*.ndjson")
    assert is_open(path)
    app.close()
    assert set(threading.enumerate()) - before == set()
    assert not is_open(path)
    (snapshot,) = Path(settings["METRICS_DIR"]).glob("*.json")
    assert "/predict 200" in msgspec.json.decode(snapshot.read_bytes())["requests"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL_NAME": ""}, "MODEL_NAME, which is not set"),
        ({"FOLLOW_SECONDS": "soon"}, "'soon', which is not a number"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(settings, changes, message):
    """A missing or wrong variable is an error before anything is started."""
    with pytest.raises(LabError, match=message):
        create_app({**settings, **changes})


def test_every_answer_has_the_fields_of_its_schema(client):
    """The schemas of the answers name every field of the real answer and no other."""
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    prediction = client.post("/predict", json=GOOD).json
    feedback = {"prediction_id": prediction["id"], "label": "yes"}
    real = {
        "Prediction": prediction,
        "Predictions": client.post("/predict/batch", json={"instances": [GOOD]}).json,
        "Accepted": client.post("/feedback", json=feedback).json,
        "Model": client.get("/model").json,
        "Status": client.get("/healthz").json,
        "Ready": client.get("/readyz").json,
        "Problem": client.post("/predict", json={}).json,
    }
    for name, body in real.items():
        assert schemas[name]["properties"].keys() == body.keys(), name
        assert schemas[name]["additionalProperties"] is False
    assert schemas["Prediction"]["properties"]["label"] == {"enum": ["no", "yes"]}
    assert schemas["Problem"]["required"] == ["type", "title", "status", "detail", "trace_id"]
