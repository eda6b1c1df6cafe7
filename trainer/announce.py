"""Write the gate's decisions, and alerts about the present champion, as events."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lab import events
from lab.ledger import Entry
from lab.retention import Retention
from lab.settings import STATE, Settings

SERVICE = "trainer"


def decision(settings: Settings, entry: Entry) -> None:
    """Write an entry of the ledger as an event."""
    figures = entry.figures
    numbers = {"score": figures.score, "gain": figures.gain, "p_value": figures.p_value, "alpha": figures.alpha}
    _write(
        settings,
        events.Decision(
            timestamp=datetime.now(UTC),
            id=str(uuid4()),
            service=SERVICE,
            environment=settings.environment,
            decision=str(entry.__struct_config__.tag),
            number=entry.number,
            model_name=entry.model,
            from_version=entry.from_version,
            to_version=entry.to_version,
            reason=entry.reason,
            figures={name: value for name, value in numbers.items() if value is not None},
        ),
    )


def missed_floors(settings: Settings, model: str, version: int, faults: list[str]) -> None:
    """Print and write an alert: on the present data, the present champion does not reach these floors."""
    message = f"version {version}, the champion in office, does not reach a floor on these data: {'; '.join(faults)}"
    print(f"alert: {message}")
    _write(
        settings,
        events.Alert(
            timestamp=datetime.now(UTC),
            id=str(uuid4()),
            service=SERVICE,
            environment=settings.environment,
            kind="below_floor",
            message=message,
            model_name=model,
            model_version=str(version),
        ),
    )


def events_folder() -> Path:
    """The folder of the event files: in a container the volume `events`, else `.lab/events`."""
    return Path(os.environ.get("EVENTS_DIR") or STATE / "events")


def _write(settings: Settings, event: events.Event) -> None:
    """Append the event. The ledger has the decision already, so a full disk is only a warning here."""
    limits = Retention(days=float(settings.events_days), megabytes=float(settings.events_mb))
    try:
        with events.Writer(events_folder(), SERVICE, retention=limits) as writer:
            writer.write([event])
    except events.NotRecordedError as error:
        print(f"warning: {error.message}")
