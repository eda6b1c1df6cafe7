"""Test of `make reset` in containers, which tests/conftest.py runs last."""

from __future__ import annotations

import sys

from tests.docker.conftest import PROJECT, docker, ours


def test_reset_leaves_nothing(boxed):
    """`make reset` leaves no container, network, volume, image or state folder of the lab."""
    assert ours("volume")
    assert docker("image", "ls", "--quiet", f"lab/*:{PROJECT}")
    process = boxed.run(sys.executable, "-m", "launcher", "reset", "--yes")
    assert process.returncode == 0, process.stderr
    assert ours("container") == ours("network") == ours("volume") == set()
    assert docker("image", "ls", "--quiet", f"lab/*:{PROJECT}") == ""
    assert not (boxed.root / ".lab").exists()
