"""Tests that the API treats and records odd requests, leaving clients and pages of another origin correctly."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.lab.conftest import WORKERS
from tests.lab.requests import JSON, RECORD, SIZES, post, send, tell

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
    """Return a request that may be wrong in a few places and that asks the server to close the connection."""

    def pick(usual: tuple[bytes, ...], rarities: tuple[bytes, ...]) -> bytes:
        return chance.choice(rarities if chance.random() < 0.15 else usual)

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
    """No odd request gets a 5xx, and the API refuses each with a problem document unless hyper refuses it first.

    hyper, which parses requests for Granian, itself answers some requests that are not HTTP with 400, 408, 414 or 431
    and no body, and closes the connection without an answer on others.
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
    refusals = [event["http.response.status_code"] for event in api.events() if event["event.dataset"] == "lab.request"]
    counts = {status: refusals.count(status) for status in set(refusals)}
    assert all(counts.get(status, 0) >= count for status, count in ours.items() if status > 400)
    time.sleep(2)  # the other worker leaves its counts every second
    text = api.ask("GET", "/metrics")[1].decode()
    for status, count in counts.items():
        lines = [line for line in text.splitlines() if line.startswith("lab_requests_total") and f'"{status}"' in line]
        assert sum(float(line.split()[-1]) for line in lines) == count, status


def test_a_client_that_leaves_is_no_fault_of_its_own(serve_kept):
    """A client that leaves before its body is complete causes no event and no count, on any route and framing."""
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
    records = [event for event in api.events() if event.get("url.path") != "/readyz"]
    assert [event["event.dataset"] for event in records] == ["lab.prediction"]
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
    """A page from another port of this machine, in a real browser, can send neither a prediction nor feedback."""
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
    records = api.events()
    assert [event["event.dataset"] for event in records if event["event.dataset"] != "lab.request"] == [
        "lab.prediction"
    ]
    statuses = {event["http.response.status_code"] for event in records if event["event.dataset"] == "lab.request"}
    assert statuses == {415}, "its simple requests came, and were refused; the others were never sent"


def _visit(browsers, folder, url: str) -> str:
    """Open the page in a browser, and return its title when its script is done."""
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
    """A client that closes its sending side after a whole request still gets its answer."""
    api = serve_kept()
    answers = [tell(api.port, post("/predict", RECORD), half=True) for _ in range(20)]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
