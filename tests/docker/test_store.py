"""Test that the other containers on the network of the S3 stand-in reach S3 and no service behind it."""

from __future__ import annotations

from tests.docker.conftest import docker, inspect

ASK = """
import urllib.error, urllib.request
for port in (9000, 9333, 9340, 8888, 23646, 19000, 19333, 19340, 18888, 33646):
    try:
        answer = str(urllib.request.urlopen(f"http://s3:{port}/healthz", timeout=10).status)
    except urllib.error.HTTPError as error:
        answer = f"{error.code} {error.read().decode().strip()}"
    except (OSError, ValueError) as error:
        answer = type(error).__name__
    print(port, answer)
"""


def test_containers_reach_s3_and_nothing_behind_it(lab):
    """Containers reach S3, while master, volume server, filer, admin and gRPC refuse them without a certificate."""
    output = docker("exec", inspect("dashboard")["Id"], "python", "-c", ASK).splitlines()
    answers = dict(line.split(" ", 1) for line in output)
    assert answers.pop("9000") == "200"
    assert len(answers) == 9
    assert set(answers.values()) == {"400 Client sent an HTTP request to an HTTPS server.", "RemoteDisconnected"}
