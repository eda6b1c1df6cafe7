"""A helper that reads events with their field names in the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lab.event_reader import Reader


def written(folder: Path) -> list[dict[str, Any]]:
    """Return every event of the folder with its field names on disk; each line must be an event."""
    reader = Reader(folder)
    records = [msgspec.to_builtins(event) for event in reader]
    assert (reader.broken, reader.unknown) == (0, 0)
    return records
