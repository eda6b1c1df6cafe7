"""Tests that no client can impair the API for other clients, on real servers started by the lab's own command."""

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

import pytest

from api.connections import CONNECTIONS
from api.routes import SWAGGER_UI
from launcher.compose import api_memory
from tests.bodies import worst, worst_batches
from tests.lab.conftest import WORKERS, Api, eventually
from tests.lab.requests import GOOD, HOST, JSON, RECORD, SIZES, post, send, tell


class Probe:
    """A probe that asks /healthz on new connections to reach both workers; `took` has the seconds of each answer."""

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
            start = time.monotonic()
            answer = tell(self._port, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            self.took.append(time.monotonic() - start)
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.failed.append(answer)


def peak(api: Api) -> float:
    """Return the sum of the peak memory of the API's processes in MB, with shared pages counted in each process."""
    pids = [api.process.pid, *(worker.pid for worker in api.workers())]
    text = "".join(open(f"/proc/{pid}/status").read() for pid in pids)  # noqa: SIM115, PTH123
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024


def test_the_worst_bodies_leave_time_for_others(serve_kept):
    """While three clients at once send the costliest bodies to each route, /healthz answers within a second."""
    api = serve_kept()
    with Probe(api.port) as probe:
        for path, size in SIZES.items():
            for name, body in worst_batches(size, RECORD) if path == "/predict/batch" else worst(size):
                with ThreadPoolExecutor(3) as crowd:
                    answers = list(crowd.map(send, [api.port] * 3, [path] * 3, [body] * 3))
                assert {status for status, _ in answers} <= {200, 400, 413, 422, 503}, (path, name, answers)
    assert probe.failed == []
    assert max(probe.took) < 1, sorted(probe.took)[-5:]
    assert len(probe.took) > 500


def test_names_of_headers_are_not_kept(serve_kept):
    """The workers keep none of 25 MB of header names, which requests without the key sent, in memory."""
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
    """Raise the limit of open files, because each connection needs a file in the test's process too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_end(serve_kept, many_files):
    """With over 2,500 idle connections the API answers again when their time is up, and logs that it was full."""
    api = serve_kept()
    with contextlib.ExitStack() as stack:
        idle = []
        for text, waits in IDLE.values():
            for _ in range(834 if waits else 100):
                idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", api.port), 60)))
                idle[-1].sendall(text)
        # Each worker takes CONNECTIONS at once, for ten seconds.
        rounds = -(-len(idle) // (WORKERS * CONNECTIONS))
        start = time.monotonic()
        assert eventually(lambda: _answers(api), 15 * rounds)
        assert time.monotonic() - start < 15 * rounds
        for connection in idle:
            connection.settimeout(15 * rounds)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(2**16):  # each is closed in the end
                    pass
    log = (api.folder / "api.log").read_text()
    full = [line for line in log.splitlines() if f"all {CONNECTIONS} connections" in line]
    assert full, log[-3000:]
    assert all(json.loads(line)["log.level"] == "warning" for line in full)


def _answers(api: Api) -> bool:
    """Return whether ten requests get 200 within three seconds each; chance decides which worker gets each one."""
    with contextlib.suppress(OSError):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", api.port), timeout=3) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
                if not connection.recv(2**16).startswith(b"HTTP/1.1 200 "):
                    return False
        return True
    return False


def test_clients_that_do_not_read_end(serve_kept):
    """The kernel ends connections on which a client reads no answer, so that their resources are free again."""
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
        client = _open(api)
        assert client > 50
        assert eventually(lambda: _open(api) < 5, 90), (client, _open(api))
    assert peak(api) <= api_memory(WORKERS)


def _open(api: Api) -> int:
    """Return the number of connections that the workers hold."""
    return sum(len(worker.net_connections(kind="tcp")) - 1 for worker in api.workers())


def test_stalled_uploads_take_only_what_they_sent(serve_kept):
    """While 40 uploads that announce 16 MB or no length stall after a byte, small chunked batches are answered."""
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
    """Full-size bodies, batches, stalled uploads, long headers and unread answers together fit the memory limit."""
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
    assert peak(api) <= api_memory(WORKERS)


def test_what_was_taken_is_given_back(serve_kept):
    """After thousands of chunked bodies, and refused, cut and late ones, a full-size body is read as at the start."""
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
    """Granian sends a file of the page whole but in pieces, so that 200 clients that read nothing cost no memory."""
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
