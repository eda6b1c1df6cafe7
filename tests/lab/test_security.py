"""Tests that neither another user of this machine nor a page in a browser on it can harm the running lab."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.settings import ROOT
from launcher import certificate
from tests.conftest import Lab, free_port, own_processes
from tests.lab.conftest import eventually
from tests.lab.page import ask
from tests.lab.test_store import objects, store

NOBODY, SOMEBODY = 65_534, 65_533
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
SECRET = b"what no other may read " * 1_000


@pytest.fixture
def unharmed(lab: Lab) -> Iterator[None]:
    """Put an object into S3, and check after the test that S3 has exactly the same objects."""
    store(lab).put_object(Bucket="lab", Key="security/secret", Body=SECRET)
    before = objects(lab)
    assert before["security/secret"] == SECRET
    assert len(before) > 10
    yield
    assert objects(lab) == before
    store(lab).delete_object(Bucket="lab", Key="security/secret")


def weed(lab: Lab) -> psutil.Process:
    return next(p for p in own_processes(lab) if "weed" in p.name())


def inner_ports(lab: Lab) -> list[int]:
    """Return every port on which SeaweedFS listens, except that of S3."""
    own = [c.laddr.port for c in weed(lab).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    ports = sorted(set(own) - {int(lab.env["S3_PORT"])})
    assert len(ports) == 9
    return ports


# Each with and without leave to read, by both names; what a page may send without asking goes out in any case.
ATTACKS = """
const [ports, paths] = arguments, read = [], jobs = [];
for (const host of ["127.0.0.1", "localhost"]) for (const port of ports) for (const [method, path] of paths) {
  for (const scheme of ["http", "https"]) {
    const url = `${scheme}://${host}:${port}${path}`;
    if (method === "IMG") jobs.push(() => new Promise((r) => {
      const i = new Image(); i.onload = i.onerror = r; i.src = url; document.body.append(i); setTimeout(r, 5000);
    }));
    else for (const mode of ["cors", "no-cors"]) jobs.push(async () => {
      const body = ["POST", "PUT"].includes(method) ? "evil" : undefined;
      try {
        const answer = await fetch(url, {method, mode, body, signal: AbortSignal.timeout(5000)});
        if (answer.ok) read.push([method, url, (await answer.text()).slice(0, 200)]);
      } catch {}
    });
  }
}
while (jobs.length) await Promise.all(jobs.splice(0, 20).map((job) => job()));
return read;
"""
STORE_PATHS = [
    ("GET", "/buckets/lab/security/secret"),
    ("GET", "/buckets/lab/?pretty=y"),
    ("GET", "/dir/status"),
    ("GET", "/dir/assign?collection=lab"),
    ("POST", "/buckets/lab/security/secret"),
    ("PUT", "/buckets/lab/security/more"),
    ("DELETE", "/buckets/lab/security/secret"),
    ("POST", "/submit"),
    ("GET", "/lab/security/secret"),
    ("DELETE", "/lab/security/secret"),
    ("POST", "/?Action=CreateAccessKey&Version=2010-05-08"),
    ("IMG", "/col/delete?collection=lab"),
    ("IMG", "/vol/vacuum"),
]


def test_a_page_can_do_nothing_to_the_store(lab, unharmed, page):
    """Master, filer, volume server, admin, their gRPC ports and S3 itself all refuse the requests of a page."""
    ports = [*inner_ports(lab), int(lab.env["S3_PORT"])]
    assert page.run(ATTACKS, ports, STORE_PATHS) == []


@pytest.fixture
def outside() -> Iterator[Path]:
    """Create a folder that every user may use, with the program of SeaweedFS in it."""
    folder = Path(tempfile.mkdtemp(prefix="lab-test-", dir="/tmp"))
    folder.chmod(0o777)
    shutil.copy(Path(sys.executable).parent / "weed", folder)
    yield folder
    shutil.rmtree(folder)


def run_weed(folder: Path, *words: str, commands: str = "") -> str:
    """Run SeaweedFS' client as another user that knows only the lab's addresses, and return its output."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process = subprocess.run(
            [folder / "weed", *words],
            cwd=folder,
            env={"HOME": str(folder), "TMPDIR": str(folder)},
            user=NOBODY if os.geteuid() == 0 else None,
            input=commands,
            capture_output=True,
            text=True,
            timeout=15,
        )
        return process.stdout + process.stderr
    return ""


SHELL = """lock
collection.list
fs.ls /buckets/lab
fs.cat /buckets/lab/security/secret
fs.rm -rf /buckets/lab/security
s3.configure -access_key=evil -secret_key=evil -user=evil -actions=Admin -apply
s3.bucket.delete -name lab
collection.delete -collection lab -apply
unlock
"""


def test_another_user_can_do_nothing_to_the_store(lab, unharmed, outside):
    """Without the certificate, SeaweedFS' client can neither read, write nor delete, over gRPC or HTTP."""
    master, filer = (f"127.0.0.1:{lab.env[name]}" for name in ("S3_MASTER_PORT", "S3_FILER_PORT"))
    file = outside / "evil"
    file.write_text("evil")
    file.chmod(0o644)
    output = run_weed(outside, "filer.cat", f"http://{filer}/buckets/lab/security/secret")
    output += run_weed(outside, "shell", f"-master={master}", f"-filer={filer}", commands=SHELL)
    output += run_weed(outside, "filer.copy", str(file), f"http://{filer}/buckets/lab/security/")
    output += run_weed(outside, "upload", f"-master={master}", "-collection=lab", str(file))
    for word in ("what no other", "dvc", "volumeCount", '"fid"'):
        assert word not in output


def test_every_inner_port_wants_the_certificate(lab):
    """Every inner port refuses plain HTTP, HTTP/2 and TLS without a client certificate."""
    for port in inner_ports(lab):
        assert _says(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") in (b"", b"HTTP/1.0 400")
        assert _says(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0") in (b"", b"HTTP/1.0 400")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
            _says(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", context)


def _says(port: int, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        line = context.wrap_socket(plain) if context else plain
        line.sendall(data)
        try:
            return line.recv(12)
        except ConnectionResetError:
            return b""


def test_the_key_is_its_owners_alone(lab):
    """Only the owner has access to the key and to its folder, which is created again with each start."""
    folder = lab.root / ".lab" / "seaweedfs"
    assert {path.name for path in folder.iterdir()} >= {"cert.pem", "key.pem"}
    for path in (folder, *folder.iterdir()):
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path


@root_only
def test_another_user_cannot_use_the_sockets(lab):
    """None of SeaweedFS' Unix sockets accepts a connection from another user."""
    names = {c.laddr for c in weed(lab).net_connections("unix") if c.laddr}
    paths = [lab.root / ".lab" / "seaweedfs" / name for name in names]  # an absolute name stays what it is
    assert len(paths) >= 6
    for path in paths:
        assert path.is_socket()
        assert _connects(path, os.geteuid())
        assert not _connects(path, NOBODY), path


def _connects(path: Path, user: int) -> bool:
    if not (child := os.fork()):
        os.setuid(user)
        with socket.socket(socket.AF_UNIX) as own:
            os._exit(own.connect_ex(str(path)) != 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@root_only
def test_a_taken_socket_is_told_nothing(tmp_path, outside):
    """A program that takes a socket's path before SeaweedFS starts receives TLS handshakes and no request."""
    ports_in_use: set[int] = set()
    values = {f"S3{part}_PORT": str(free_port(ports_in_use)) for part in ("", "_MASTER", "_VOLUME", "_FILER", "_ADMIN")}
    values |= {"LAB_BIN": str(outside), "LAB_ROOT": str(outside), "LAB_STATE": str(outside), "S3_BUCKET": "lab"}
    shutil.copytree(ROOT / "services" / "seaweedfs", outside / "services" / "seaweedfs")
    for name in ("seaweedfs", "s3"):
        (outside / name).mkdir()
    certificate.draw(outside / "seaweedfs")
    for path in outside.rglob("*"):
        os.chown(path, SOMEBODY, SOMEBODY)
    port = int(values["S3_MASTER_PORT"]) + 10_000
    path = Path(f"/tmp/seaweedfs-master-grpc-{port}.sock")  # noqa: S108
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as own, (tmp_path / "log").open("w") as log:
        own.bind(str(path))
        path.chmod(0o777)
        os.chown(path, NOBODY, NOBODY)
        own.listen()
        threading.Thread(target=_hear, args=(own, heard), daemon=True).start()
        process = subprocess.Popen(
            _s3_command(values), cwd=outside / "seaweedfs", user=SOMEBODY, stdout=log, stderr=log, env={}
        )
        try:
            assert eventually(lambda: len(heard) > 2), (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
            path.unlink()
    assert {first[:2] for first in heard} == {b"\x16\x03"}, heard[0]


def _hear(own: socket.socket, heard: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            with own.accept()[0] as line:
                heard.append(line.recv(100))


def _s3_command(values: dict[str, str]) -> list[str]:
    """Return the S3 command from services/supervisord.conf."""
    config = configparser.RawConfigParser(inline_comment_prefixes=None)
    config.read(ROOT / "services" / "supervisord.conf")
    return shlex.split(re.sub(r"%\(ENV_(\w+)\)s", lambda m: values[m[1]], config["program:s3"]["command"]))


def test_s3_gives_nothing_without_a_signature(lab, unharmed):
    """S3 refuses every unsigned request to read, list, write or remove an object or to create a key or a token."""
    paths = [
        "/",
        "/lab",
        "/lab/",
        "/lab/security/secret",
        "/lab?list-type=2",
        "/lab?policy",
        "/lab?acl",
        "/lab?uploads",
    ]
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        for path in paths:
            for headers in ({}, {"Authorization": "Bearer x"}, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}):
                status, body = ask(lab.env["S3_PORT"], method, path, "<x/>", **headers)
                assert status in (400, 403, 405), (method, path, headers, body)
    for action in ("CreateUser", "CreateAccessKey", "ListUsers", "AssumeRole", "GetFederationToken"):
        status, _ = ask(lab.env["S3_PORT"], "POST", f"/?Action={action}&Version=2010-05-08&UserName=evil")
        assert status in (400, 403)
