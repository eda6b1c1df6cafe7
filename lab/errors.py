"""The exception for faults that a person can correct, and `run`, which ends a command with such a fault."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn


class LabError(Exception):
    """A fault with a message and a `remedy`: the message describes the fault, and the remedy corrects it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.remedy}" if self.remedy else self.message


def from_os_error(error: OSError) -> LabError:
    """The error for a failed file operation, with a remedy where one is known."""
    if isinstance(error, TimeoutError):
        return LabError(f"waited too long: {error}", "see `make status`")
    place = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LabError(f"the disk is full: cannot write {place}", "free some space, then run the command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LabError(
            f"no permission for {place}: {error.strerror}",
            "make the folder writable for you, or clone the repository to a writable folder",
        )
    return LabError(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def run(command: Callable[[], int | None]) -> NoReturn:
    """Run a command line and exit with 0 or its return value, or with 1 after one message about the fault."""
    try:
        status = command() or 0
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except subprocess.TimeoutExpired as error:
        program = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        print(f"error: {program} took more than {error.timeout:g} s", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # the reader of the output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        print(f"error: {from_os_error(error)}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
