"""Progress and tables: live on a terminal, plain lines in a pipe, and never read as markup."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from lab.settings import ROOT

WAIT = """
import time
from launcher.console import Progress, print_table
progress = Progress()
progress.waiting("S3 [bold]x[/] :smile:")
progress.print("a line of a subprocess " + "x" * 200)
progress.waiting("S3 [bold]x[/] :smile:")
time.sleep(0.3)
progress.done("S3 is up [1]")
print_table([["service", "address"], ["API", "http://127.0.0.1:8000"], ["S3 [x]", "y" * 100]])
"""
ERASE = "\x1b[2K"


def run(code: str, *, terminal: bool, **env: str) -> str:
    """The output of the code on a terminal of 80 columns, or through a pipe."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environ = {**inherited, "COLUMNS": "80", "TERM": "xterm", **env}
    command = [sys.executable, "-c", code]
    if not terminal:
        process = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
        assert (process.returncode, process.stderr) == (0, "")
        return process.stdout
    parent, child = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=child, stderr=child) as process:
        os.close(child)
        text = b""
        try:
            while data := os.read(parent, 65_536):
                text += data
        except OSError:  # the end of a terminal
            pass
        assert process.wait(60) == 0, text
    os.close(parent)
    return text.decode()


def test_a_pipe_gets_plain_lines():
    """A pipe gets no escape code and no wrapped line, and the same wait once."""
    lines = run(WAIT, terminal=False).splitlines()
    assert lines[:3] == [
        "     0 s  waiting for S3 [bold]x[/] :smile:",
        "a line of a subprocess " + "x" * 200,
        "     0 s  S3 is up [1]",
    ]
    assert [line.split() for line in lines[3:] if "─" not in line] == [
        ["service", "address"],
        ["API", "http://127.0.0.1:8000"],
        ["S3", "[x]", "y" * 100],
    ]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_live_line_that_goes():
    """The live line is erased, the cursor is shown again, and a table fits into 80 columns."""
    text = run(WAIT, terminal=True)
    assert "waiting for S3 [bold]x[/] :smile:" in text
    assert ERASE in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "S3 is up [1]" in text.rpartition(ERASE)[2]
    table = text.rpartition("is up [1]")[2].replace("\r", "").split("\n")
    assert max(len(line) for line in table if "\x1b" not in line) <= 80
    assert sum(line.count("y") for line in table) == 100


@pytest.mark.parametrize(
    ("terminal", "env"),
    [(True, {"TERM": "dumb"}), (True, {"TERM": "unknown"}), (True, {"NO_COLOR": "1"}), (False, {"FORCE_COLOR": "1"})],
)
def test_plain_lines_where_escape_codes_are_not_wanted(terminal, env):
    """A simple terminal, NO_COLOR, and a pipe even with FORCE_COLOR get no escape codes and no wrapped line."""
    text = run(WAIT, terminal=terminal, **env)
    assert "\x1b" not in text
    assert "y" * 100 in text


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_ends_the_live_line(terminal):
    """After an error the cursor is shown again, and the message is whole."""
    code = "from launcher.console import Progress\nprogress = Progress()\nprogress.waiting('x')\n"
    text = run(code + "import sys\nprint('error: ' + 'y' * 20)\nsys.exit(0)", terminal=terminal)
    assert "error: " + "y" * 20 in text
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == int(terminal)


def test_a_command_goes_on_when_nobody_reads(tmp_path):
    """A command finishes its work when its output is closed, as in `make train | head -1`."""
    code = (
        "import pathlib, sys\nfrom launcher.console import Progress\nprogress = Progress()\n"
        "for number in range(20000):\n progress.print(f'line {number}')\npathlib.Path(sys.argv[1]).write_text('done')\n"
    )
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mark")], cwd=ROOT, stdout=write) as process:
        os.close(write)
        os.read(read, 10)
        os.close(read)
        assert process.wait(60) == 0
    assert (tmp_path / "mark").read_text() == "done"
