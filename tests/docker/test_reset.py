"""`make reset` in containers. It comes last: tests/conftest.py sees to it."""

from __future__ import annotations

import sys

from tests.docker.conftest import PROJECT, docker, ours


def test_reset_leaves_nothing(boxed):
    """No container, network, volume or image of its own."""
    assert ours("volume")
    assert docker("image", "ls", "--quiet", f"lab/*:{PROJECT}")
    process = boxed.run(sys.executable, "-m", "launcher", "reset", "--yes")
    assert process.returncode == 0, process.stderr
    assert ours("container") == ours("network") == ours("volume") == set()
    assert docker("image", "ls", "--quiet", f"lab/*:{PROJECT}") == ""
    assert not (boxed.root / ".lab").exists()
