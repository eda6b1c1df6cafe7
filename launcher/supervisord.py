"""Run supervisord with values from standard input.

`python -m launcher.supervisord -c services/supervisord.conf < JSON`

%(ENV_X)s in the file stands for the member X of the JSON object. Without this module supervisord would take X
from its own environment, which every service inherits, and would end a value at the first quote in the value.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from supervisor import supervisord
from supervisor.options import ServerOptions

VALUES: dict[str, str] = {}


class Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options. A value that contains a quote is inserted after the file has been parsed."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.late = {f"<{name}>": value for name, value in VALUES.items() if set(value) & set("'\"")}
        here = {name: f"<{name}>" if f"<{name}>" in self.late else value for name, value in VALUES.items()}
        self.environ_expansions |= {f"ENV_{name}": value for name, value in here.items()}

    def processes_from_section(self, *words: Any, **options: Any) -> Any:
        programs = super().processes_from_section(*words, **options)
        for program in programs:
            for mark, value in self.late.items():
                program.environment = {k: v.replace(mark, value) for k, v in program.environment.items()}
        return programs


if __name__ == "__main__":
    VALUES |= msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, str])
    supervisord.ServerOptions = Options
    supervisord.main()
