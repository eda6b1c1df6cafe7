"""Tests that the API survives faults, on the lab's own servers."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import socket
import subprocess
import sys
import threading

import msgspec
import numpy as np
import onnxruntime
import psutil
import pytest
import urllib3

from lab.registry import Registry, Version
from launcher.services import SERVICES
from tests.conftest import own_processes
from tests.lab.conftest import BENIGN, Load, eventually, store
from tests.recorded import written

CANCER = "breast-cancer-wisconsin"


@pytest.fixture(scope="module")
def versions(lab) -> tuple[Registry, list[Version]]:
    """Register a separate model: version 1 is the logistic regression, version 2 the nearest neighbours."""
    real = Registry(lab.url("MLFLOW_PORT"), CANCER)
    mine = Registry(real.url, "served-by-a-test")
    runs = msgspec.json.decode(
        urllib3.request(
            "POST",
            f"{real.url}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": _experiments(real.url), "filter": "tags.candidate != ''"},
        ).data
    )["runs"]
    result = {}
    for run in runs:
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        result[tags["candidate"]] = run["info"]["run_id"]
    numbers = []
    for name in ("logistic-regression", "k-nearest-neighbours"):
        trained = Version(CANCER, 0, f"{real.run_artifacts(result[name])}/package", result[name], {})
        card, model = real.download(trained)
        # A package says of which registered model it is.
        card = msgspec.json.encode({**msgspec.json.decode(card), "problem": mine.model})
        numbers.append(store(mine, result[name], mine.model, (card, model)))
    mine.promote(numbers[0])
    return mine, numbers


def _experiments(url: str) -> list[str]:
    answer = urllib3.request("GET", f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={CANCER}")
    return [msgspec.json.decode(answer.data)["experiment"]["experiment_id"]]


@pytest.fixture
def serve(start_api, versions):
    """Give a function that starts an API that looks for a new champion of `versions` every 0.02 s."""
    registry, _ = versions

    def start(**variables):
        env = {"MLFLOW_TRACKING_URI": registry.url, "MODEL_NAME": registry.model, "FOLLOW_SECONDS": "0.02"}
        return start_api(**{**env, **variables})

    return start


def _expected(registry: Registry, version: Version) -> tuple[float, float]:
    """Return the probability and the threshold that this version must answer for BENIGN."""
    card_text, model = registry.download(version)
    card = msgspec.json.decode(card_text)
    row = np.array([[BENIGN[feature["name"]] for feature in card["features"]]], dtype=np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float(session.run(["probabilities"], {"features": row})[0][0, 1]), card["threshold"]


def test_two_hundred_champion_changes(serve, versions):
    """Under load no request fails, and no answer or event has one version's number and another's probability."""
    registry, (first, second) = versions
    expected = {version.number: _expected(registry, version) for version in (first, second)}
    assert expected[1] != expected[2]
    registry.promote(first)
    api = serve()
    assert eventually(api.all_ready)
    with Load(api.port) as load:
        for version in itertools.islice(itertools.cycle((second, first)), 200):
            registry.promote(version)
            assert eventually(lambda v=version: _last(load, 10) == {v.number}, 30)
    assert load.failures == []
    assert api.metric("lab_model_swaps_total") >= 200
    for answer in load.answers:
        assert (answer["probability"], answer["threshold"]) == expected[answer["model"]["version"]]
    recorded = {event["event.id"]: event for event in api.events()}
    for answer in load.answers:
        event = recorded[answer["id"]]
        assert event["labels.model_version"] == str(answer["model"]["version"])
        assert (event["lab.probability"], event["lab.threshold"]) == (answer["probability"], answer["threshold"])


def _last(load: Load, count: int) -> set[int]:
    return {answer["model"]["version"] for answer in load.answers[-count:]}


def test_a_killed_worker_loses_nothing(lab):
    """After 20 kills of a worker under load, every answer is on file in whole lines, and the API keeps answering."""
    chance = random.Random(1)
    with Load(int(lab.env["API_PORT"])) as load:
        for _ in range(20):
            before = len(load.answers)
            assert eventually(lambda n=before: len(load.answers) > n + 20)
            assert eventually(lambda: len(_workers(lab)) == 2)
            victim = chance.choice(_workers(lab))
            victim.kill()
            assert eventually(lambda v=victim: v not in _workers(lab))
        before = len(load.answers)
        assert eventually(lambda: len(load.answers) > before + 20)
    recorded = {event["event.id"] for event in written(lab.root / ".lab" / "events")}
    assert {answer["id"] for answer in load.answers} <= recorded
    assert len(load.answers) > 400


def _workers(lab) -> list[psutil.Process]:
    """Return the live workers; they are forked, so only their parent distinguishes them from the first process."""
    with contextlib.suppress(psutil.Error):
        family = {p.pid: p for p in _of(lab, "api")}
        alive = [p for p in family.values() if p.ppid() in family and p.status() != psutil.STATUS_ZOMBIE]
        return [p for p in alive if "resource_tracker" not in " ".join(p.cmdline())]
    return []


def test_all_others_are_killed_and_predictions_go_on(lab):
    """When all other services are killed, singly and together, no /predict fails and supervisord restarts them."""
    others = [service.name for service in SERVICES if service.name not in ("api", "aws")]  # the latter is off
    with Load(int(lab.env["API_PORT"])) as load:
        for names in [*([name] for name in others), others]:
            before = len(load.answers)
            victims = [process for name in names for process in _of(lab, name)]
            assert len(victims) >= len(names)
            for process in victims:
                process.kill()
            assert eventually(lambda n=before: len(load.answers) > n + 100)
            assert eventually(lambda n=names: all(_of(lab, name) for name in n)), "supervisord starts them again"
    assert load.failures == []
    assert eventually(lambda: lab.run(sys.executable, "-m", "launcher", "status").returncode == 0, 120)


def _of(lab, name: str) -> list[psutil.Process]:
    """Return the processes that supervisord runs under this name."""
    result = []
    for process in own_processes(lab):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUPERVISOR_PROCESS_NAME") == name:
                result.append(process)
    return result


@pytest.mark.parametrize("fault", ["truncated", "altered", "swapped", "empty"])
def test_an_unsound_package_is_refused(serve, versions, fault):
    """The old model stays, /readyz, one alert and a metric report the fault, and the next sound model is served."""
    registry, (first, second) = versions
    registry.promote(first)
    api = serve()
    assert eventually(api.all_ready)
    card, model = registry.download(first)
    packages = {
        "truncated": (card, model[: len(model) // 2]),
        "altered": (card, model[:-1] + bytes([model[-1] ^ 1])),
        "swapped": (card, registry.download(second)[1]),
        "empty": (b"", b""),
    }[fault]
    bad = store(registry, first.run_id, fault, packages)
    registry.promote(bad)
    assert eventually(lambda: (api.ready().get("refused") or {}).get("version") == bad.number)
    assert eventually(lambda: api.metric("lab_model_refusals_total") == 2), "both workers"
    for _ in range(10):
        assert api.ready()["version"] == first.number
        assert api.ask("POST", "/predict", BENIGN)[1]["model"]["version"] == first.number
    alerts = [event for event in api.events() if event["event.dataset"] == "lab.alert"]
    assert [(alert["lab.kind"], alert["labels.model_version"]) for alert in alerts] == [
        ("model_refused", str(bad.number))
    ], "one alert, although each worker refused it"
    registry.promote(second)
    assert eventually(lambda: api.ready().get("version") == second.number)
    assert eventually(lambda: api.ready().get("refused") is None)


def test_a_restart_without_registry_and_stores(serve, tmp_path):
    """A restarted API serves the last good model; an API without a model is alive and answers 503 with the reason."""
    api = serve()
    assert eventually(api.all_ready)
    version = api.ready()["version"]
    assert api.stop() == 0
    alone = serve(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert alone.ready()["version"] == version
    assert alone.ask("POST", "/predict", BENIGN)[0] == 200
    nothing = serve(folder=tmp_path / "new", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert nothing.ask("GET", "/healthz")[0] == 200
    for method, path, body in (("GET", "/readyz", None), ("POST", "/predict", BENIGN)):
        status, answer = nothing.ask(method, path, body)
        assert status == 503
        assert eventually(lambda m=method, p=path, b=body: "127.0.0.1:9" in nothing.ask(m, p, b)[1]["detail"]), answer


def test_a_graceful_stop_answers_what_was_accepted(serve):
    """On SIGTERM the API answers every large batch in progress in full, and then exits with status 0."""
    api = serve()
    assert eventually(api.all_ready)
    batch = {"instances": [BENIGN] * 10_000}
    answers: list[tuple[int, int]] = []

    def ask() -> None:
        status, answer = api.ask("POST", "/predict/batch", batch)
        answers.append((status, len(answer["predictions"])))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: answers)
    assert api.stop() == 0
    for thread in threads:
        thread.join(60)
    assert answers == [(200, 10_000)] * 4
    snapshots = [msgspec.json.decode(path.read_bytes()) for path in (api.folder / "metrics").glob("*.json")]
    counts = [sum(each["requests"].get("/predict/batch 200", {}).get("buckets", [])) for each in snapshots]
    assert sum(counts) == 4, "the workers were closed, and left their last counts"


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_slow_clients_do_not_stop_the_others(serve):
    """While 200 clients stall within a request, other clients are answered, and a stalled body gets 408 in the end."""
    api = serve(BODY_SECONDS="4")
    assert eventually(api.all_ready)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(200)]
        for number, connection in enumerate(slow):
            connection.sendall(HEAD + (b"Content-Length: 200\r\n\r\n{" if number % 2 else b""))
        for _ in range(50):
            assert api.ask("POST", "/predict", BENIGN)[0] == 200
        for connection in slow[1::2]:
            connection.settimeout(30)
            answer = connection.makefile("rb").read()  # to the end: the connection is closed
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert b"send it again" in answer
    assert eventually(lambda: api.metric('lab_requests_total{route="/predict",status="408"}') == 100)
    refusals = [event for event in api.events() if event.get("url.path") == "/predict"]
    assert [event["http.response.status_code"] for event in refusals] == [408] * 100


def test_slow_batches_do_not_fill_the_memory(serve):
    """Slow uploads count against a memory limit, beyond which they get 503, and single records are still answered."""
    api = serve(BODY_SECONDS="3")
    assert eventually(api.all_ready)
    head = HEAD.replace(b"/predict", b"/predict/batch") + b"Content-Length: 16000000\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(20)]
        for connection in slow:
            connection.settimeout(30)
            with contextlib.suppress(OSError):  # one that is refused in the middle
                connection.sendall(head + b" " * 10_000_000)
        for _ in range(50):
            assert api.ask("POST", "/predict", BENIGN)[0] == 200
        answers = [_read(connection) for connection in slow]
    refusals = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ") and b"Busy" in answer]
    late = [answer for answer in answers if answer.startswith(b"HTTP/1.1 408 ")]
    assert 5 <= len(late) <= 10, "five a worker make 48 MiB; one worker may have got them all"
    assert len(refusals) + len(late) + answers.count(b"") == 20
    assert refusals
    assert api.ask("POST", "/predict/batch", {"instances": [BENIGN] * 1000})[0] == 200


def _read(connection: socket.socket) -> bytes:
    """Return the answer, or nothing if a reset came first because the client was still sending when refused."""
    with contextlib.suppress(ConnectionResetError):
        return connection.makefile("rb").read()
    return b""


def test_without_the_key_no_body_is_awaited(serve):
    """A request without the key gets 401 before its body arrives, so that it cannot make the API wait."""
    api = serve(API_KEY="a" * 40)
    assert eventually(lambda: api.ask("POST", "/predict", BENIGN, **{"X-API-Key": "a" * 40})[0] == 200)
    with socket.create_connection(("127.0.0.1", api.port)) as stranger:
        stranger.settimeout(10)
        stranger.sendall(HEAD + b"Content-Length: 200\r\n\r\n{")
        assert stranger.makefile("rb").readline().startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 413), (20_000_000, 413)])
def test_bodies_of_every_length(serve, size, status, chunked):
    """Announced or in chunks, a body within the limit is read whole, a larger one is refused, and the API goes on."""
    api = serve()
    assert eventually(api.all_ready)
    body = json.dumps(BENIGN).encode().ljust(size)
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    with contextlib.closing(connection):
        for _ in range(2):  # on the same connection
            parts = iter([body[:10], body[10:40_000], body[40_000:]]) if chunked else body
            connection.request("POST", "/predict", parts, {"Content-Type": "application/json"}, encode_chunked=chunked)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)


def test_a_client_that_leaves_half_way(serve):
    """The API records neither an answer nor a fault for a client that leaves half-way, and still answers others."""
    api = serve()
    assert eventually(api.all_ready)
    for length in (b"Content-Length: 200\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
        with socket.create_connection(("127.0.0.1", api.port)) as leaver:
            leaver.sendall(HEAD + length)
        assert api.ask("POST", "/predict", BENIGN)[0] == 200
    records = [event for event in api.events() if event.get("url.path", "/predict") == "/predict"]
    assert [event["event.dataset"] for event in records] == ["lab.prediction"] * 2
    assert 'status="400"' not in api.ask("GET", "/metrics")[1].decode()


def test_a_header_cannot_pass_for_another(serve):
    """The API refuses the key in X_API_Key, although WSGI would give that header and X-API-Key the same name."""
    api = serve(API_KEY="a" * 40)
    assert eventually(lambda: api.ask("POST", "/predict", BENIGN, **{"X-API-Key": "a" * 40})[0] == 200)
    assert api.ask("POST", "/predict", BENIGN, X_API_Key="a" * 40)[0] == 401


def test_a_full_disk_for_events(serve, tmp_path):
    """On a full disk the API answers 503 instead of a prediction without a record, and recovers when there is room."""
    folder = tmp_path / "events"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        api = serve()
        assert eventually(api.all_ready)
        with Load(api.port, clients=2) as load:
            assert eventually(lambda: load.failures)
            # The other worker's file may have room for a few more in its last page.
            answers = (api.ask("POST", "/predict", BENIGN) for _ in itertools.count())
            answer = eventually(lambda: next((body for status, body in [next(answers)] if status == 503), None))
            assert answer["title"] == "Not recorded"
            assert "disk is full" in answer["detail"]
            assert api.ask("GET", "/healthz")[0] == 200
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
            before = len(load.answers)
            assert eventually(lambda: len(load.answers) > before + 50)
        assert all(failure.startswith("503") for failure in load.failures)
        assert {answer["id"] for answer in load.answers} <= {event["event.id"] for event in api.events()}
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_schemathesis_finds_nothing(lab):
    """Generated requests for every operation get no 5xx and no answer that the OpenAPI document does not allow."""
    process = lab.run(
        "schemathesis",
        *("run", lab.url("API_PORT") + "/openapi.json", "--max-examples", "60", "--seed", "1"),
        *("--generation-deterministic", "--no-color"),
        seconds=600,
    )
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]


def test_ten_thousand_bodies(lab):
    """Of ten thousand generated bodies none gets a 5xx, and only the valid ones get a prediction.

    The bodies have wrong types, huge numbers, NaN, deep nesting, bad UTF-8, repeated keys and other content types. The
    client repeats a request when the server closed an idle connection, because the machine may pause for that long.
    """
    chance = random.Random(20261123)
    connection = http.client.HTTPConnection("127.0.0.1", int(lab.env["API_PORT"]), timeout=60)
    counts = dict.fromkeys((200, 400, 413, 415, 422), 0)
    cut = 0
    for _ in range(10_000):
        body, kind, good = _generated(chance)
        try:
            status, text = _post(connection, body, kind)
        except (http.client.RemoteDisconnected, ConnectionError):
            cut += 1
            connection.close()
            status, text = _post(connection, body, kind)
        assert status in counts, (status, body[:200], text)
        assert (status == 200) == good, (status, body[:200], text)
        counts[status] += 1
    assert all(counts.values()), counts
    assert cut <= 2


def _post(connection: http.client.HTTPConnection, body: bytes, kind: str) -> tuple[int, bytes]:
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read()


ODD = [
    "null",
    "true",
    '"1"',
    "1.5",
    "1e400",
    "-1",
    "11",
    "NaN",
    "Infinity",
    "[1]",
    "{}",
    "1" * 400,
    "01",
    "1.0",
    "+1",
    "",
]
FINE = {"1.0"}


def _generated(chance: random.Random) -> tuple[bytes, str, bool]:
    """Return a body, its content type, and whether the API must answer it with a prediction."""
    pairs = [(name, str(chance.randint(1, 10))) for name in BENIGN]
    chance.shuffle(pairs)
    place, kind, good = chance.randrange(len(pairs)), "application/json", True
    fault = chance.randrange(10)
    if fault == 0:
        value = chance.choice(ODD)
        good = value in FINE or (value == "null" and pairs[place][0] == "bare_nuclei")
        pairs[place] = (pairs[place][0], value)
    elif fault == 1:
        good = pairs.pop(place)[0] == "bare_nuclei"
    elif fault == 2:
        pairs.append(chance.choice([pairs[place], ("colour", "1")]))
        good = False
    elif fault == 3:
        kind = chance.choice(["text/plain", "", "application/xml", "application/x-www-form-urlencoded"])
        good = False
    elif fault == 4:
        kind = chance.choice(["application/json; charset=utf-8", "Application/JSON"])
    body = ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}").encode()
    if fault == 5:
        body, good = chance.choice([b"[" * 30_000, b'{"a":' * 10_000, b" " * 70_000, b"", b"{", b"\x00"]), False
    elif fault == 6:
        cut = chance.randrange(1, len(body))
        body, good = body[:cut] + bytes([chance.randrange(128, 256)]) + body[cut:], False
    elif fault == 7:
        body, good = body[: chance.randrange(len(body))], False
    return body, kind, good
