"""supervisord for services/supervisord.conf: `python -m lab.supervisord -c FILE`, a JSON object on standard input.

What the file writes as %(ENV_X)s is the object's X. supervisord itself takes it from its own environment, which every
service inherits, and ends a value at the first quote in it.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from supervisor import supervisord
from supervisor.options import ServerOptions

VALUES: dict[str, str] = {}


class Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options: a value with a quote is put in after the file was read."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.late = {f"<{name}>": value for name, value in VALUES.items() if set(value) & set("'\"")}
        here = {name: f"<{name}>" if f"<{name}>" in self.late else value for name, value in VALUES.items()}
        self.environ_expansions |= {f"ENV_{name}": value for name, value in here.items()}

    def processes_from_section(self, *words: Any, **named: Any) -> Any:
        programs = super().processes_from_section(*words, **named)
        for program in programs:
            for mark, value in self.late.items():
                program.environment = {k: v.replace(mark, value) for k, v in program.environment.items()}
        return programs


if __name__ == "__main__":
    VALUES |= msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, str])
    supervisord.ServerOptions = Options
    supervisord.main()
