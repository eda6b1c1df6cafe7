"""What a person sees while the lab works: live where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress


class Progress:
    """A line that says what is being waited for and for how long."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self._live = sys.stdout.isatty()
        self._said = ""
        self._next = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def waiting(self, what: str) -> None:
        """Show what is waited for: rewritten in place on a terminal, else when it changes or every 10 s."""
        if self._live:
            _write(f"\r\033[K  {self.seconds():4.0f} s  waiting for {what}")
        elif what != self._said or self.seconds() >= self._next:
            _write(f"  {self.seconds():4.0f} s  waiting for {what}\n")
            self._next = self.seconds() + 10
        self._said = what

    def done(self, what: str) -> None:
        """Leave a line that stays."""
        self.print(f"  {self.seconds():4.0f} s  {what}")

    def print(self, line: str) -> None:
        """Print a line where the one that is being waited on stood."""
        erase = "\r\033[K" if self._live else ""
        _write(f"{erase}{line}\n")


def _write(text: str) -> None:
    # What was begun is not given up half-way because nobody reads on, as in `make train | head`.
    with suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()


def table(rows: list[list[str]]) -> str:
    """Rows, the first one the head, in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
