"""The stand-in AWS among processes: off unless asked for."""

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
    """Neither started nor waited for nor in the table; AWS=1 brings it, behind its key, and AWS=0 takes it away."""
    port, up = int(lab.env["AWS_PORT"]), (sys.executable, "-m", "launcher", "up")
    assert not _listens(port)
    try:
        done = lab.run(*up, AWS="1")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert re.search(rf"AWS stand-in +{lab.url('AWS_PORT')} +up ", done.stdout)
        kept = dotenv_values(lab.root / ".env")
        key = kept["AWS_EMULATOR_KEY_ID"], kept["AWS_EMULATOR_SECRET_KEY"]
        assert Emulator(port, *key).client("sts").get_caller_identity()["Account"] == "000000000000"
        assert not any(value in done.stdout for value in key)
    finally:
        done = lab.run(*up, AWS="0")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "AWS stand-in" not in done.stdout
    assert not _listens(port)
    assert lab.run(sys.executable, "-m", "launcher", "status").returncode == 0
