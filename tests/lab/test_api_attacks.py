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

import msgspec
import pytest

from api.connections import CONNECTIONS
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
    """Asks /healthz again and again, each time on a new connection, so that both workers are asked; keeps how long it took."""

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
                found: list[int] = []
                crowd = [
                    threading.Thread(target=lambda p=path, b=body: found.append(send(api.port, p, b)[0]))
                    for _ in range(3)
                ]
                for each in crowd:
                    each.start()
                for each in crowd:
                    each.join(90)
                assert set(found) <= {200, 400, 413, 422, 503}, (path, name, found)
                assert len(found) == 3, (path, name)
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
