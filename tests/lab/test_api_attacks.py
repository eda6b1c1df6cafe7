"""What one client can do to the API of all the others: nothing. Real servers, started by the lab's own command."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from api.connections import CONNECTIONS
from api.routes import SWAGGER_UI
from lab.compose import api_memory
from tests.bodies import worst, worst_batches
from tests.lab.conftest import WORKERS, Api, eventually
from tests.unit.conftest import package  # noqa: F401

RECORD = b'{"a":1}'
GOOD = b'{"instances":[' + b",".join([RECORD] * 10_000) + b"]}"
HOST = b"Host: 127.0.0.1\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
SIZES = {"/predict": 64 * 1024, "/feedback": 64 * 1024, "/predict/batch": 16 * 2**20}


@pytest.fixture
def serve_kept(start_api, tmp_path, package):  # noqa: F811
    """Start an API that has a small model, and no registry."""
    described, onnx = package
    kept = {"version": 7, "card": msgspec.json.encode(described), "model": onnx}

    def start(**variables: str) -> Api:
        (tmp_path / "keep").mkdir(exist_ok=True)
        (tmp_path / "keep" / "small.msgpack").write_bytes(msgspec.msgpack.encode(kept))
        wanted = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MODEL_NAME": "small", "FOLLOW_SECONDS": "3600"}
        api = start_api(**{**wanted, "API_KEY": "", "ALLOWED_HOSTS": "", **variables})
        assert eventually(lambda: api.ready() and len(api.workers()) == WORKERS)
        return api

    return start


def post(path: str, body: bytes, head: bytes = JSON) -> bytes:
    """The bytes of a request."""
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), head, len(body)) + body


def tell(port: int, *parts: bytes, half: bool = False) -> bytes:
    """Send the parts on a connection of their own; give all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
            if half:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(2**16):
                answer += piece
        return answer


def send(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """POST the body; give status and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Probe:
    """Asks /healthz on new connections, so that both workers are asked; `took` has the seconds of each."""

    def __init__(self, port: int) -> None:
        self._port, self.took, self.failed = port, [], []

    def __enter__(self) -> Probe:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(90)

    def _ask(self) -> None:
        while not self._end.wait(0.01):
            begun = time.monotonic()
            answer = tell(self._port, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            self.took.append(time.monotonic() - begun)
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.failed.append(answer)


def peak(api: Api) -> float:
    """The most that the API's processes had in memory, each counted whole, in MB."""
    pids = [api.process.pid, *(worker.pid for worker in api.workers())]
    text = "".join(open(f"/proc/{pid}/status").read() for pid in pids)  # noqa: SIM115, PTH123
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024


def test_the_worst_bodies_leave_time_for_others(serve_kept):
    """Each of full size, on every route, three at once: /healthz is answered within a second all the while."""
    api = serve_kept()
    with Probe(api.port) as probe:
        for path, size in SIZES.items():
            for name, body in worst_batches(size, RECORD) if path == "/predict/batch" else worst(size):
                with ThreadPoolExecutor(3) as crowd:
                    found = list(crowd.map(send, [api.port] * 3, [path] * 3, [body] * 3))
                assert {status for status, _ in found} <= {200, 400, 413, 422, 503}, (path, name, found)
    assert probe.failed == []
    assert max(probe.took) < 1, sorted(probe.took)[-5:]
    assert len(probe.took) > 500


def test_names_of_headers_are_not_kept(serve_kept):
    """Fifty thousand names of half a kilobyte: nothing of 25 MB is kept, with or without the key."""
    api = serve_kept(API_KEY="a" * 40)
    before = {worker.pid: worker.memory_info().rss for worker in api.workers()}
    for batch in range(12):
        with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
            for number in range(50):
                names = (b"x-%d-%d-%d-%s: 1\r\n" % (batch, number, name, b"n" * 500) for name in range(90))
                connection.sendall(b"GET /model HTTP/1.1\r\n" + HOST + b"".join(names) + b"\r\n")
                assert connection.recv(2**16).startswith(b"HTTP/1.1 401 ")
    grown = [worker.memory_info().rss - before[worker.pid] for worker in api.workers()]
    assert sum(grown) < 15 * 2**20, grown


# What a connection sends, and whether the server waits for more after it.
IDLE = {
    "nothing": (b"", True),
    "the start of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", False),
    "HTTP/2 and its settings": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", False),
    "half a header": (b"GET /healthz HTTP/1.1\r\nHost: 127", True),
    "a whole request": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", True),
}


@pytest.fixture
def many_files():
    """So many connections need so many files on this side, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", IDLE)
def test_idle_connections_end(serve_kept, many_files, kind):
    """With 2,500 that ask for nothing the API answers again within their time, and its log says that it was full."""
    api = serve_kept()
    sent, waits = IDLE[kind]
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port), 60)) for _ in range(2_500)]
        for connection in idle:
            connection.sendall(sent)
        # Each worker takes CONNECTIONS at once, for ten seconds.
        rounds = -(-2_500 // (WORKERS * CONNECTIONS))
        begun = time.monotonic()
        assert eventually(lambda: _answers(api), 15 * rounds)
        assert time.monotonic() - begun < 15 * rounds
        for connection in idle:
            connection.settimeout(15 * rounds)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(2**16):  # each is closed in the end
                    pass
    log = (api.folder / "api.log").read_text()
    full = [line for line in log.splitlines() if f"all {CONNECTIONS} connections" in line]
    assert bool(full) == waits, log[-3000:]
    assert all(json.loads(line)["log.level"] == "warning" for line in full)


def _answers(api: Api) -> bool:
    """Whether both workers answer, each within three seconds: which one is asked is chance."""
    with contextlib.suppress(OSError):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", api.port), timeout=3) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
                if not connection.recv(2**16).startswith(b"HTTP/1.1 200 "):
                    return False
        return True
    return False


def test_clients_that_do_not_read_end(serve_kept):
    """Each asks for large answers and reads nothing: the kernel ends them, and what they took is free again."""
    api = serve_kept()
    time.sleep(2)  # it listens for a second before it limits this
    with contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(100):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(60)
            connection.connect(("127.0.0.1", api.port))
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(post("/predict/batch", GOOD) * 10)  # more than the kernel keeps for one
            deaf.append(connection)
        assert eventually(lambda: send(api.port, "/predict/batch", GOOD)[0] == 200, 90)
        held = _open(api)
        assert held > 50
        assert eventually(lambda: _open(api) < 5, 90), (held, _open(api))
    assert peak(api) <= api_memory(WORKERS)


def _open(api: Api) -> int:
    """The connections that the workers hold."""
    return sum(len(worker.net_connections(kind="tcp")) - 1 for worker in api.workers())


def test_stalled_uploads_take_only_what_they_sent(serve_kept):
    """Forty that announce 16 MB, or nothing, and send a byte: a small batch in chunks is answered all the while."""
    api = serve_kept(BODY_SECONDS="5")
    lengths = (b"Content-Length: 16000000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port), 60)) for _ in range(40)]
        for connection, length in zip(slow, itertools.cycle(lengths), strict=False):
            connection.sendall(b"POST /predict/batch HTTP/1.1\r\n" + JSON + length)
        batch = b'{"instances":[' + b",".join([RECORD] * 1000) + b"]}"
        chunked = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(batch), batch)
        for _ in range(20):
            answer = tell(api.port, b"POST /predict/batch HTTP/1.1\r\n" + JSON + chunked)
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
        for connection in slow:
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_the_worst_mix_stays_within_the_memory_of_the_container(serve_kept):
    """Full-size bodies of every kind, normal batches, stalled uploads, long headers, unread answers, all at once."""
    api = serve_kept(BODY_SECONDS="10")
    end = threading.Event()
    answers: list[int] = []

    def upload(bodies: list[bytes]) -> None:
        for body in itertools.cycle(bodies):
            if end.is_set():
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(send(api.port, "/predict/batch", body)[0])

    evil = [body for _, body in random.Random(5).sample(list(worst_batches(SIZES["/predict/batch"], RECORD)), 12)]
    evil.append(b'{"instances":[' + b"{}," * 5_000_000 + b"{}]}")
    threads = [threading.Thread(target=upload, args=(evil[n:] + evil[:n],)) for n in range(0, 12, 2)]
    threads += [threading.Thread(target=upload, args=([GOOD],)) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for head, count in (
            (b"POST /predict/batch HTTP/1.1\r\n" + JSON + b"Content-Length: 16000000\r\n\r\n" + b" " * 15_000_000, 8),
            (b"POST /predict/batch HTTP/1.1\r\n" + JSON + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000, 40),
            (b"POST /predict HTTP/1.1\r\n" + JSON + b"Content-Length: 65536\r\n\r\n" + b" " * 65_000, 300),
            (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 60_000, 300),
            (post("/predict/batch", GOOD), 100),
        ):
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", api.port))
                connection.settimeout(0.2)  # one that is refused in the middle reads no more
                with contextlib.suppress(OSError):
                    connection.sendall(head)
        for thread in threads:
            thread.start()
        time.sleep(20)
        end.set()
        for thread in threads:
            thread.join(90)
    assert 200 in answers
    assert len(api.workers()) == WORKERS
    print(f"peak of all processes: {peak(api):.0f} MB of {api_memory(WORKERS)}; {len(answers)} answers")
    assert peak(api) <= api_memory(WORKERS)


PATHS = (b"/predict", b"/predict/batch", b"/feedback", b"/model", b"/healthz", b"/metrics", b"/docs/start.js")
ODD_PATHS = (
    *(b"//predict", b"///feedback", b"/%2Fpredict", b"/predict%00", b"/docs/%00", b"/docs/%2e%2e/rsgi.py"),
    *(
        b"/docs/" + b"d" * 5000,
        b"/%ff%fe",
        b"/%",
        b"/%zz",
        b"*",
        b"predict",
        "/\u00e9".encode(),
        b"/\xff",
        b"/a b",
        b"",
    ),
    *(b"http://localhost/predict", b"http://u@localhost:1/model", b"//x/y", b"/nothing"),
)
LENGTHS = (
    *(b"", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 99999999999999999999"),
    *(b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 7\r\nContent-Length: 7"),
    *(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"),
)
MORE = (
    *(b"Expect: 100-continue", b"Expect: a wonder", b"Content-Encoding: gzip", b"Upgrade: h2c\r\nConnection: Upgrade"),
    *(b"If-Modified-Since: Mon, 01 Jan 100000000000000000000 00:00:00 GMT", b"Range: bytes=-1-", b"If-None-Match: *"),
    *(b"traceparent: " + b"-" * 50, b"X-API-Key: \xe9", b"X-Api_Key: 1", b"Bad Name: 1", b"NoColon", b" folded: 1"),
    *(b"Cookie: " + b"c" * 9000, b"X: \x00", b"X: \x7f", b"Connection: keep-alive", b"Authorization: Basic !!!"),
)


def _odd(chance: random.Random) -> bytes:
    """A request that is wrong in a place or two; it asks for the connection to be closed."""

    def pick(usual: tuple[bytes, ...], odd: tuple[bytes, ...]) -> bytes:
        return chance.choice(odd if chance.random() < 0.15 else usual)

    method = pick(
        (b"GET", b"POST", b"POST", b"OPTIONS"), (b"PUT", b"HEAD", b"TRACE", b"PATCH", b"get", b"X" * 300, b"")
    )
    path = pick(PATHS, (*ODD_PATHS, bytes(chance.randrange(33, 256) for _ in range(8))))
    query = pick(
        (b"", b"?a=1"), ("?\u00e9=\u00fc".encode(), b"?\xff\xfe", b"?" + b"q" * 3000, b"?%ff&%00=%zz", b"??=&&")
    )
    version = pick((b"HTTP/1.1",), (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b""))
    body = pick((RECORD, b'{"a": 99}'), (b"", b"{", b"\xff", RECORD * 3))
    host = pick((b"Host: 127.0.0.1",), (b"", b"Host:", b"Host: evil.example", b"Host: \xff", b"Host: a\r\nHost: a"))
    kind = pick((b"Content-Type: application/json",), (b"", b"Content-Type: \xff", b"Content-Type: ;=;"))
    length = pick((b"Content-Length: %d" % len(body),), LENGTHS)
    if b"chunked" in length:
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        body = pick((chunks,), (b"ffffffffffffffffff\r\n", b"-1\r\n", b"0\r\nx: y\r\n\r\n"))
    lines = [host, kind, length, pick((b"",), MORE), pick((b"",), MORE), b"Connection: close"]
    head = b"%s %s%s %s" % (method, path, query, version)
    return b"\r\n".join([head, *filter(None, lines), b"", body]) + pick((b"",), (b"\r\njunk\r\n",))


def test_no_request_breaks_anything(serve_kept):
    """Four thousand odd ones: no 5xx, and a problem for each that is refused, unless the server refused it before us.

    hyper, which parses requests for Granian, answers some that are no HTTP by itself, with 400, 408 or 431 and no
    body, and others with no answer at all: it closes.
    """
    api, chance = serve_kept(BODY_SECONDS="1"), random.Random(20261126)
    ours: dict[int, int] = {}
    theirs: dict[int, int] = {}
    for _ in range(4_000):
        request = _odd(chance)
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
            raw = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(request)
                while piece := connection.recv(2**16):
                    raw += piece
        raw = raw.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not raw:
            continue
        status = int(raw[9:12])
        head, _, body = raw.lower().partition(b"\r\n\r\n")
        assert status < 500, (request, raw)
        if status < 400:
            ours[status] = ours.get(status, 0) + 1
        elif b"application/problem+json" in head:
            ours[status] = ours.get(status, 0) + 1
            assert request.startswith(b"HEAD") or json.loads(body.split(b"\r\nhttp/1.1 ")[0])["status"] == status
        else:
            theirs[status] = theirs.get(status, 0) + 1
            assert status in (400, 408, 414, 431), (request, raw)
            assert body == b"", (request, raw)
    assert ours.keys() >= {200, 204, 400, 404, 405, 415, 421, 422}, (ours, theirs)
    assert sum(ours.values()) > 1_000, (ours, theirs)
    assert len(api.workers()) == WORKERS
    # Each refusal of ours is in the events, and no other.
    refused = [event["http.response.status_code"] for event in api.events() if event["event.dataset"] == "lab.request"]
    counted = {status: refused.count(status) for status in set(refused)}
    print(ours, theirs, counted)
    assert all(counted.get(status, 0) >= count for status, count in ours.items() if status > 400)
    time.sleep(2)  # the other worker leaves its counts every second
    text = api.ask("GET", "/metrics")[1].decode()
    for status, count in counted.items():
        lines = [line for line in text.splitlines() if line.startswith("lab_requests_total") and f'"{status}"' in line]
        assert sum(float(line.split()[-1]) for line in lines) == count, status


def test_a_client_that_leaves_is_no_fault_of_its_own(serve_kept):
    """One that is gone before its body is whole leaves no event and no count, on any route and however it sends."""
    api = serve_kept()
    starts = (
        b"Content-Length: 200\r\n\r\n{",
        b"Content-Length: 2000000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n7\r\n" + RECORD + b"\r\n",
    )
    for path, start in itertools.product(SIZES, starts):
        for how in ("close", "reset", "half"):
            with socket.create_connection(("127.0.0.1", api.port), timeout=20) as leaver:
                leaver.sendall(b"POST %s HTTP/1.1\r\n" % path.encode() + JSON + start)
                time.sleep(0.02)
                if how == "reset":
                    leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if how == "half":
                    leaver.shutdown(socket.SHUT_WR)
                    assert leaver.recv(2**16)[:13] in (b"", b"HTTP/1.1 400 "), "it can still read why"
    assert send(api.port, "/predict", RECORD)[0] == 200
    time.sleep(2)
    assert [event["event.dataset"] for event in api.events()] == ["lab.prediction"]
    assert 'status="400"' not in api.ask("GET", "/metrics")[1].decode()
    assert "Traceback" not in (api.folder / "api.log").read_text()


PAGE = """<!doctype html><title>a page of another origin</title><script>
const url = "http://127.0.0.1:PORT", body = JSON.stringify(BODY), said = [];
async function attempt(name, options) {
  for (const path of ["/feedback", "/predict", "/predict/batch"])
    try { said.push(name + " " + (await fetch(url + path, {method: "POST", body, ...options})).type); }
    catch (error) { said.push(name + " failed"); }
}
async function run() {
  const json = {"Content-Type": "application/json"};
  await attempt("json", {headers: json});
  await attempt("json without cors", {headers: json, mode: "no-cors"});
  await attempt("text", {headers: {"Content-Type": "text/plain"}, mode: "no-cors"});
  await attempt("text that says json", {headers: {"Content-Type": "text/plain; application/json"}, mode: "no-cors"});
  await attempt("no type", {body: new Blob([body]), mode: "no-cors"});
  await attempt("blob", {body: new Blob([body], {type: "application/json"}), mode: "no-cors"});
  for (const path of ["/feedback", "/predict", "/predict/batch"])
    try { navigator.sendBeacon(url + path, new Blob([body], {type: "application/json"})); } catch (error) {}
  try { await (await fetch(url + "/model")).text(); said.push("read"); } catch (error) { said.push("unread"); }
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", enctype: "text/plain", action: url + "/feedback", target: "frame"});
  form.innerHTML = "<input name='" + body.slice(0, -1).replace(/'/g, "") + ",\\"x\\":\\"' value='\\"}'>";
  document.body.innerHTML = "<iframe name=frame></iframe>";
  document.body.append(form);
  form.submit();
  setTimeout(() => { document.title = "done: " + said.join(", "); }, 2000);
}
window.onload = run;
</script><body></body>"""


def test_a_page_of_another_origin_posts_nothing(serve_kept, tmp_path):
    """On another port of the same machine, in a real browser: whatever it tries, no prediction and no feedback."""
    browsers = pytest.importorskip("tests.browser.test_dashboard")
    if not (browsers.DRIVER and browsers.CHROMIUM):
        pytest.skip("no Chromium with its chromedriver on this machine")
    api = serve_kept()
    prediction = json.loads(send(api.port, "/predict", RECORD)[1])["id"]
    body = json.dumps({"prediction_id": prediction, "label": "yes"})
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text(PAGE.replace("PORT", str(api.port)).replace("BODY", body))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "page"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        title = _visit(browsers, tmp_path, f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert "unread" in title
    assert "basic" not in title
    found = api.events()
    assert [event["event.dataset"] for event in found if event["event.dataset"] != "lab.request"] == ["lab.prediction"]
    statuses = {event["http.response.status_code"] for event in found if event["event.dataset"] == "lab.request"}
    assert statuses == {415}, "its simple requests came, and were refused; the others were never sent"


def _visit(browsers, folder, url: str) -> str:
    """The page's title when its script is done."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browsers.CHROMIUM
    for flag in [*browsers.FLAGS, f"--user-data-dir={folder / 'chromium'}", "--no-sandbox"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=browsers.DRIVER))
    try:
        driver.set_page_load_timeout(120)
        driver.get(url)
        WebDriverWait(driver, 120).until(lambda d: d.title.startswith("done"))
        return driver.title
    finally:
        driver.quit()


@pytest.mark.xfail(
    strict=True,
    reason="hyper drops a request when the client has ended its side, unless it is told to allow that (half_close); "
    "Granian 2.8 has no option for it",
)
def test_a_client_that_ends_its_side_gets_its_answer(serve_kept):
    """It has sent its whole request, and only reads from then on."""
    api = serve_kept()
    answers = [tell(api.port, post("/predict", RECORD), half=True) for _ in range(20)]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_what_was_taken_is_given_back(serve_kept):
    """After two thousand bodies in chunks, refused, cut and late ones, one of full size is read as at the start."""
    api = serve_kept(BODY_SECONDS="1")
    full = GOOD[:-1].ljust(SIZES["/predict/batch"] - 1) + b"}"
    large = b"%x\r\n%s\r\n0\r\n\r\n" % (60_000, RECORD.ljust(60_000))
    for path in SIZES:
        head = b"POST %s HTTP/1.1\r\n" % path.encode() + JSON + b"Transfer-Encoding: chunked\r\n"
        for _ in range(4):
            assert tell(api.port, *[head + b"\r\n" + large] * 500, head + b"Connection: close\r\n\r\n" + large)
        assert tell(api.port, head + b"Connection: close\r\n\r\n5\r\n{").startswith(b"HTTP/1.1 408 ")
        assert tell(api.port, head + b"\r\n5\r\n{", half=True).startswith(b"HTTP/1.1 400 ")
    assert tell(api.port, b"POST /predict/batch HTTP/1.1\r\n" + JSON + b"Content-Length: 20000000\r\n\r\n", half=True)
    for _ in range(10):
        assert send(api.port, "/predict/batch", full)[0] == 200


def test_the_files_of_the_page_are_sent_whole(serve_kept):
    """Granian reads them a piece at a time: two hundred clients that take none of 1.5 MB cost no memory."""
    api = serve_kept()
    before = sum(worker.memory_info().rss for worker in api.workers())
    request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n" + HOST
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", api.port))
            connection.sendall((request + b"\r\n") * 20)
        time.sleep(3)
        head, _, body = tell(api.port, request + b"Connection: close\r\n\r\n").partition(b"\r\n\r\n")
        assert body == (SWAGGER_UI / "swagger-ui-bundle.js").read_bytes()
        assert b"text/javascript" in head
        grown = sum(worker.memory_info().rss for worker in api.workers()) - before
    assert grown < 100 * 2**20, grown
