"""The state of this clone's lab: which engine made it."""

from __future__ import annotations

from lab.settings import STATE

MADE_BY = STATE / "engine"


def note_engine(name: str) -> None:
    """Record the engine that makes the state from now on, so that every later command uses this engine."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    MADE_BY.write_text(name)


def made_by() -> str:
    """The name of the engine that made the state; empty when there is no state."""
    try:
        return MADE_BY.read_text().strip()
    except OSError:
        # The first version of the lab had one engine and wrote no such file.
        return "embedded" if (STATE / "mlflow").exists() else ""
