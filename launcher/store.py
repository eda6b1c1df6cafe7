"""Check that the lab's data is still in S3."""

from __future__ import annotations

from lab import http
from lab.errors import LabError
from lab.registry import Registry, Version


def check(registry: Registry, champion: Version, place: str) -> None:
    """Raise LabError unless the champion's package can be read; `place` is where S3 keeps its data."""
    try:
        registry.download(champion)
    except http.RefusedError as error:
        raise LabError(
            f"the data in S3 are lost: MLflow names version {champion.number} of {champion.model} as champion, but S3 "
            "does not have it. The datasets, the packages of all models, the artifacts of all runs and the ledger are "
            f"lost as well. {error.message}",
            f"run `make down`, restore {place} from a backup, run `make up`. "
            "Without a backup start over: `make reset`, then `make up`",
        ) from error
