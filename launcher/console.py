"""Progress and tables on the terminal, by rich. Where there is no terminal they are plain lines."""

from __future__ import annotations

import atexit
import os
import sys
import time

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

# A line in a pipe or a file is never wrapped.
PLAIN_WIDTH = 10_000
# Without a terminal, a step that still runs is printed again after this number of seconds.
REPEAT_SECONDS = 10
# Values of TERM for a terminal without escape codes.
SIMPLE = ("dumb", "unknown")


class Output(Console):
    """Standard output. Text is printed as it is, without rich's markup."""

    def __init__(self) -> None:
        # rich alone keeps the cursor's codes with NO_COLOR, and writes codes into a pipe with FORCE_COLOR.
        plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in SIMPLE
        super().__init__(markup=False, emoji=False, highlight=False, force_terminal=not plain)
        if plain:
            self.width = PLAIN_WIDTH

    def on_broken_pipe(self) -> None:
        """Continue without output when the reader of the output has ended, as in `make train | head`."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """The steps of a command: a line for each finished step, and on a terminal a live line for the present step."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self._output = Output()
        self._status: Status | None = None
        self._task = ""
        self._next = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def waiting(self, what: str) -> None:
        """Show the present step. Without a terminal, print it when it changes, and every REPEAT_SECONDS."""
        line = f"{self.seconds():4.0f} s  waiting for {what}"
        if self._output.is_terminal:
            self._show(line)
        elif what != self._task or self.seconds() >= self._next:
            self._print(f"  {line}")
            self._next = self.seconds() + REPEAT_SECONDS
        self._task = what

    def done(self, what: str) -> None:
        """End the live line, and print a permanent line for the finished step."""
        self.stop()
        self._print(f"  {self.seconds():4.0f} s  {what}")

    def print(self, line: str) -> None:
        """Print a line above the live line."""
        self._print(line)

    def stop(self) -> None:
        """Remove the live line, if there is one."""
        if self._status:
            self._status.stop()
            self._status = None

    def _show(self, line: str) -> None:
        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self._status:
            self._status.update(text)
        else:
            self._status = Status(text, console=self._output, spinner="line")
            self._status.start()
            atexit.register(self.stop)  # the live line hides the cursor

    def _print(self, text: str) -> None:
        self._output.print(text, soft_wrap=True)


def print_table(rows: list[list[str]]) -> None:
    """Print rows in aligned columns; the first row is the head. On a narrow terminal long cells are wrapped."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    Output().print(table)
