"""Tests that the lab recovers from killed processes and simultaneous commands, and refuses no client meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from launcher.services import SERVICES
from tests.conftest import own_processes
from tests.lab.conftest import BENIGN, Api, Load, command, eventually

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
NOWHERE = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MODEL_NAME": "breast-cancer-wisconsin"}


@pytest.fixture
def serve(start_api, lab, tmp_path):
    """Give a function that starts an API that serves the lab's champion without a registry."""
    keep = tmp_path / "keep"
    shutil.copytree(lab.root / ".lab" / "api", keep)

    def start(**variables: str) -> Api:
        api = start_api(**NOWHERE, **variables)
        assert eventually(api.all_ready)
        return api

    return start


class Strangers:
    """Clients that open a new connection for every request until the end of the `with` block."""

    def __init__(self, port: int) -> None:
        self.port, self.answered, self.refused, self.cut = port, 0, 0, 0

    def __enter__(self) -> Strangers:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._come) for _ in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _come(self) -> None:
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            with contextlib.closing(connection):
                try:
                    connection.request("GET", "/healthz")
                    assert connection.getresponse().status == 200
                    self.answered += 1
                except ConnectionRefusedError:
                    self.refused += 1
                except (OSError, http.client.HTTPException):  # it was with the worker that was killed
                    self.cut += 1
            time.sleep(0.005)


def test_a_worker_that_dies_again_and_again_turns_nobody_away(serve):
    """When a worker is killed repeatedly under load, no connection is refused and the first process keeps running."""
    api = serve()
    with Load(api.port) as load, Strangers(api.port) as strangers:
        for _ in range(8):
            assert eventually(lambda: len(api.workers()) == 2)
            victim = api.workers()[-1]
            victim.kill()
            assert eventually(lambda v=victim: v not in api.workers())
        before = strangers.answered
        assert eventually(lambda: strangers.answered > before + 50 and len(load.answers) > 50)
    assert strangers.refused == 0
    assert not [failure for failure in load.failures if "refused" in failure]
    assert api.process.poll() is None
    assert strangers.cut + len(load.failures) <= 8 * 12, "each death cuts off those that it was answering, at most"


def test_all_workers_dead_is_a_wait_and_no_refusal(start_api):
    """When all workers are killed at once, new workers answer the waiting clients and those that connect then."""
    api = start_api(**NOWHERE)
    for _ in range(5):
        assert eventually(lambda: len(api.workers()) == 2)
        workers = api.workers()
        for worker in workers:
            worker.suspend()
        assert eventually(lambda w=workers: all(each.status() == psutil.STATUS_STOPPED for each in w))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_ask(api.port)) for _ in range(20)]
            for worker in workers:
                worker.kill()
            clients += [stack.enter_context(_ask(api.port)) for _ in range(20)]
            answers = [client.makefile("rb").read() for client in clients]
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 40
    assert api.process.poll() is None


def _ask(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    return client


def test_a_worker_that_cannot_start_ends_the_server(tmp_path):
    """A worker that cannot start ends the server, so that supervisord or Docker notices and waits longer each time."""
    folders = {name: str(tmp_path / name) for name in ("EVENTS_DIR", "KEEP_DIR", "METRICS_DIR")}
    run = subprocess.run(
        command(10_000 + os.getpid() % 20_000),
        env={**os.environ, **NOWHERE, **folders, "EVENTS_DAYS": "no number"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode != 0
    assert "could not convert string to float: 'no number'" in run.stdout + run.stderr


def test_workers_end_with_their_first_process(serve):
    """When the first process is killed, idle workers end at once, and a busy worker ends after its answer."""
    api = serve()
    workers = api.workers()
    with (
        socket.create_connection(("127.0.0.1", api.port)) as idle,
        socket.create_connection(("127.0.0.1", api.port)) as busy,
    ):
        busy.sendall(HEAD + b"Content-Length: 2\r\n\r\n{")
        time.sleep(0.5)
        api.process.kill()
        time.sleep(1)
        busy.sendall(b"}")
        busy.settimeout(10)
        assert busy.recv(100).startswith(b"HTTP/1.1 422 ")
        assert not psutil.wait_procs(workers, timeout=15)[1]
        idle.settimeout(10)
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", api.port))


def _supervisord(lab) -> psutil.Process | None:
    for process in own_processes(lab):
        with contextlib.suppress(psutil.Error):
            if "supervisord" in " ".join(process.cmdline()):
                return process
    return None


def test_a_killed_first_process_leaves_no_old_workers(lab):
    """After a kill of the API's first process, soon only the new one and its workers listen and serve the champion."""
    for _ in range(3):
        first, before = eventually(lambda: _whole(lab))
        first.kill()
        new, after = eventually(lambda b=before: (pair := _whole(lab)) and not pair[1] & b and pair, 90)
        assert new.pid != first.pid
        assert not after & before
        assert eventually(lambda: lab.api("GET", "/readyz")[0] == 200)


def _whole(lab) -> tuple[psutil.Process, set[int]] | None:
    """Return the API's first process and the pids on its port, if these are that process and its two workers."""
    port, listening = int(lab.env["API_PORT"]), set()
    with contextlib.suppress(psutil.Error):
        for process in own_processes(lab):
            every = process.net_connections("tcp4")
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in every):
                listening.add(process.pid)
        supervisord = _supervisord(lab)
        children = supervisord.children() if supervisord else []
        first = next((p for p in children if "api.workers" in " ".join(p.cmdline())), None)
        if first and listening == {first.pid, *(child.pid for child in first.children())} and len(listening) == 3:
            return first, listening
    return None


def test_up_after_a_killed_supervisor(lab):
    """After a kill of supervisord `up` ends leftover processes, starts each service once, and `status` is green."""
    for seconds in (0, 0.3, 1, 3):
        before = {process.pid for process in own_processes(lab)}
        _supervisord(lab).kill()
        time.sleep(seconds)
        output = lab.python("-m", "launcher", "up")
        assert "ending the processes that a killed supervisord left" in output
        assert not before & {process.pid for process in own_processes(lab)}
        run = lab.run(sys.executable, "-m", "launcher", "status")
        assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", [service.name for service in SERVICES])
def test_status_is_green_when_up_has_said_so(lab, name):
    """After `up`, `status` is green even for a service that was killed a moment ago and has just restarted."""
    for process in own_processes(lab):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUPERVISOR_PROCESS_NAME") == name:
                process.kill()
    lab.python("-m", "launcher", "up")
    run = lab.run(sys.executable, "-m", "launcher", "status")
    assert run.returncode == 0, run.stdout


@contextlib.contextmanager
def first_command(lab, name: str) -> Iterator[subprocess.Popen]:
    """Start a command that holds the lab's lock, and kill it at the end of the block."""
    code = "import sys\nfrom launcher import lock\n"
    code += f"with lock.held('{name}'):\n print('held', flush=True)\n sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=lab.root, env=lab.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_second_command_says_which_one_is_running(lab):
    """A second command names the running one and changes nothing, `status` works, and a kill releases the lock."""
    before = {process.pid for process in own_processes(lab)}
    with first_command(lab, "train") as first:
        for words in (["up"], ["train"], ["down"], ["reset", "--yes"]):
            run = lab.run(sys.executable, "-m", "launcher", *words)
            assert run.returncode == 1
            assert f"make train (pid {first.pid}) is running in this folder" in run.stderr
            assert "What to do" in run.stderr
        assert lab.run(sys.executable, "-m", "launcher", "status").returncode == 0
    assert before <= {process.pid for process in own_processes(lab)}
    lab.python("-m", "launcher", "up")


def test_two_ups_at_once(lab):
    """Of two simultaneous `up` commands one starts the lab, the other names the first, and every service is up."""
    lab.python("-m", "launcher", "down")
    words = [sys.executable, "-m", "launcher", "up"]
    both = [
        subprocess.Popen(words, cwd=lab.root, env=lab.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = {process.pid: (*process.communicate(timeout=600), process.returncode) for process in both}
    (winner,) = [pid for pid, (_, _, code) in outputs.items() if code == 0]
    (loser,) = [pid for pid, (_, _, code) in outputs.items() if code == 1]
    assert f"make up (pid {winner}) is running in this folder" in outputs[loser][1]
    assert lab.run(sys.executable, "-m", "launcher", "status").returncode == 0


def test_events_are_deleted_as_the_settings_say(serve, tmp_path):
    """The API deletes events by EVENTS_DAYS and EVENTS_MB, and creates removed event files again at once."""
    folder = tmp_path / "events"
    folder.mkdir()
    for number, days in enumerate((120, 80, 3, 2)):
        path = folder / f"api-20260101T000000.00000{number}-1.ndjson"
        path.touch()
        os.truncate(path, 1_000_000)
        os.utime(path, (time.time() - days * 86_400,) * 2)
    api = serve(EVENTS_DAYS="100", EVENTS_MB="2.5")
    assert api.ask("POST", "/predict", BENIGN)[0] == 200
    assert {path.name[25] for path in folder.glob("api-20260101*")} == {"2", "3"}
    for _ in range(3):
        shutil.rmtree(folder)
        status, answer = api.ask("POST", "/predict", BENIGN)
        assert status == 200
        assert answer["id"] in {event["event.id"] for event in api.events()}
