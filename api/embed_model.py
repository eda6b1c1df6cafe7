"""`python -m api.embed_model PACKAGE FOLDER`: put a champion's package into the image, where the follower finds it.

PACKAGE holds card.json, model.onnx and `version`, the number it is registered under. An empty folder changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from api.follower import StoredModel, stored_name
from api.model import load
from lab import card as cards
from lab import errors
from lab.card import CARD_FILE, MODEL_FILE
from lab.errors import LabError

VERSION_FILE = "version"


def embed(package: Path, folder: Path) -> Path | None:
    """Write the package in the form that the follower reads; raise LabError unless it is complete and sound."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(package.iterdir()):
        return None
    for name in (CARD_FILE, MODEL_FILE, VERSION_FILE):
        if not (package / name).is_file():
            raise LabError(f"the package has no {name}", f"give a folder with {CARD_FILE}, {MODEL_FILE} and version")
    number = (package / VERSION_FILE).read_text().strip()
    if not number.isascii() or not number.isdigit():
        raise LabError(f"the package's version is {number!r}", "it is the number that the registry gave, e.g. 7")
    content = StoredModel(int(number), (package / CARD_FILE).read_bytes(), (package / MODEL_FILE).read_bytes())
    model = load(cards.decode(content.card).problem, content.version, content.card, content.model)
    path = folder / stored_name(model.card.problem)
    path.write_bytes(msgspec.msgpack.encode(content))
    return path


def main() -> int:
    path = embed(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"the package is in {path}" if path else "no package: this image follows the registry")
    return 0


if __name__ == "__main__":
    errors.run(main)
