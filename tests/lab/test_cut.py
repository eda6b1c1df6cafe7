"""Tests that losing S3 or MLflow at any point of the choice leaves no half-made champion, and that a second run
completes the choice.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import msgspec
import pytest

from lab import card, ledger, problem
from lab.errors import LabError
from lab.registry import Registry
from lab.settings import Settings, parse
from trainer import promote
from trainer.results import Paths


class Line:
    """A TCP proxy to `port` on this machine that closes for good after `limit` bytes have been sent to it.

    With `rename` the proxy puts the server's own address into the Host header, because MLflow accepts no other; S3's
    signatures need the header as it was sent.
    """

    def __init__(self, port: int, rename: bool, limit: float = float("inf")) -> None:
        self.port, self.limit, self.sent = port, limit, 0
        self.rename = rename
        self.open: list[socket.socket] = []
        self.lock = threading.Lock()
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def cut(self) -> None:
        self.limit = 0
        for each in [self.server, *self.open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                return
            self.open += [near, far]
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while data := near.recv(65_536):
                if self.rename:
                    data = data.replace(self.url[7:].encode(), f"127.0.0.1:{self.port}".encode())
                with self.lock:
                    room = self.limit - self.sent
                    self.sent += len(data)
                far.sendall(data[: int(max(room, 0))] if room < len(data) else data)
                if room < len(data):
                    self.cut()
                    return
            far.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(65_536):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def settings_of(lab, **changes: str) -> Settings:
    env_values = dict(line.split("=", 1) for line in (lab.root / ".env").read_text().splitlines() if "=" in line)
    return parse({**env_values, **changes})


@pytest.fixture(scope="module")
def sizes(lab):
    """Return the number of bytes that a whole choice sends to MLflow and to S3."""
    mlflow, s3 = Line(int(lab.env["MLFLOW_PORT"]), True), Line(int(lab.env["S3_PORT"]), False)
    attempt(lab, "uncut", MLFLOW_URL=mlflow.url, S3_ENDPOINT_URL=s3.url)
    traffic = {"MLFLOW": mlflow.sent, "S3": s3.sent}
    mlflow.cut()
    s3.cut()
    return traffic


def attempt(lab, name: str, **changes: str):
    """Choose among the lab's trained models under another model name, so that each choice begins with nothing."""
    definition = msgspec.structs.replace(problem.load(lab.root / "params.yaml"), name=name)
    floors = msgspec.structs.replace(definition.choice, floors={})
    return promote.promote(settings_of(lab, **changes), definition, Paths(lab.root), floors, promote.Person("a test"))


@pytest.mark.parametrize(
    ("service", "share"),
    [("MLFLOW", 0.01), ("MLFLOW", 0.3), ("MLFLOW", 0.7), ("MLFLOW", 0.97), ("MLFLOW", 0.995), ("S3", 0.1), ("S3", 0.8)],
)
def test_a_cut_line_leaves_no_half_made_champion(lab, sizes, service, share):
    """A cut gives one error and no half-made champion, and the second run ends with one version and one entry."""
    name = f"cut-{service.lower()}-{int(share * 1000)}"
    line = Line(int(lab.env[f"{service}_PORT"]), service == "MLFLOW", share * sizes[service])
    setting = {"MLFLOW": "MLFLOW_URL", "S3": "S3_ENDPOINT_URL"}[service]
    with pytest.raises(LabError) as error:
        attempt(lab, name, **{setting: line.url})
    assert error.value.remedy
    line.cut()
    registry, values = Registry(lab.url("MLFLOW_PORT"), name), settings_of(lab)
    half = registry.champion()
    if half:
        text, model = registry.download(half)
        card.check_hash(card.decode(text), model)

    attempt(lab, name)
    champion = registry.champion()
    text, model = registry.download(champion)
    card.check_hash(card.decode(text), model)
    assert champion.number == 1
    entries = ledger.Ledger(values, name).read().entries
    assert [(type(e), e.number, e.from_version, e.to_version) for e in entries] == [(ledger.Promoted, 1, None, 1)]
