"""Test that the AWS stand-in of a lab of processes is off by default."""

from __future__ import annotations

import re
import socket
import sys

from dotenv import dotenv_values

from tests.emulator import Emulator


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_is_off_unless_asked_for(lab):
    """The AWS stand-in is off by default, AWS=1 starts it with its key and lists it, and AWS=0 stops it again."""
    port, up = int(lab.env["AWS_PORT"]), (sys.executable, "-m", "launcher", "up")
    assert not _listens(port)
    try:
        process = lab.run(*up, AWS="1")
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
        assert re.search(rf"AWS stand-in +{lab.url('AWS_PORT')} +up ", process.stdout)
        env_values = dotenv_values(lab.root / ".env")
        key = env_values["AWS_EMULATOR_KEY_ID"], env_values["AWS_EMULATOR_SECRET_KEY"]
        assert Emulator(port, *key).client("sts").get_caller_identity()["Account"] == "000000000000"
        assert not any(value in process.stdout for value in key)
    finally:
        process = lab.run(*up, AWS="0")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
    assert "AWS stand-in" not in process.stdout
    assert not _listens(port)
    assert lab.run(sys.executable, "-m", "launcher", "status").returncode == 0
