"""Follow the champion: download, verify, swap, and keep the last good one on disk."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from api.alerts import Alerts
from api.metrics import Metrics
from api.model import Model, load
from lab.card import CARD_BYTES, MODEL_BYTES
from lab.errors import LabError, from_os_error
from lab.http import RefusedError, UnreachableError
from lab.registry import Registry, Version

# A refused version is tried again after this number of seconds, because its package may have been corrected.
REFUSED_SECONDS = 60.0
# When the app is closed, a look at the registry has this number of seconds to end. The thread is a daemon, so it cannot
# keep the process alive.
STOP_SECONDS = 5.0
log = logging.getLogger(__name__)


class StoredModel(msgspec.Struct, frozen=True):
    """The last good package, in the form in which it is stored on disk."""

    version: int
    card: bytes
    model: bytes


def stored_name(model: str) -> str:
    """The name of the file that holds a registered model."""
    return f"{model}.msgpack"


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version that the API refuses to serve."""

    version: int
    reason: str


class Follower:
    """Holds the model that is served and replaces it when the alias moves to a version that is sound.

    A request reads `model` once, so it uses one model from start to end. Until the registry answers, `model` is the
    model stored in `keep`, else the model in the image, in `package_folder`.
    """

    def __init__(
        self, registry: Registry, keep: Path, package_folder: Path | None, alerts: Alerts, metrics: Metrics
    ) -> None:
        self.registry = registry
        self.model: Model | None = None
        self.refused: Refused | None = None
        self.fault = "the registry was not asked yet"
        self._keep, self._lock = keep / stored_name(registry.model), keep / ".trial.lock"
        self._sources = [self._keep, *([package_folder / self._keep.name] if package_folder else [])]
        self._alerts, self._metrics = alerts, metrics
        self._again = 0.0
        self._end = threading.Event()
        self._looked: float | None = None
        self._failing: Model | None = None
        self._unusable: dict[Path, str] = {}
        # The card of a model from the disk, until it has been compared with the card in the registry.
        self._unsure = b""

    def start(self, seconds: float) -> None:
        """Serve the stored model, and start to look at the alias every `seconds`."""
        self._restore()
        self._thread = threading.Thread(target=self._follow, args=(seconds,), name="follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking at the alias. A look that has begun gets STOP_SECONDS to end."""
        self._end.set()
        self._thread.join(STOP_SECONDS)

    def poll(self) -> None:
        """Look at the alias once; swap when it names another version and that version is sound."""
        try:
            champion = self.registry.champion()
            if champion is None:
                self._blame(f"{self.registry.model} has no champion yet: train one with `make train`")
            elif self._serves(champion):
                self.fault, self.refused = "", None
            elif not self._refused(champion.number):
                self._swap(champion)
        except LabError as error:
            self._blame(error.message)
        finally:
            self._looked = time.monotonic()
        if self.model is None:  # another worker may have stored a model meanwhile
            self._restore()

    @property
    def look_age(self) -> float | None:
        """Seconds since the last look at the alias ended, with or without success; None before the first one ended."""
        return None if self._looked is None else time.monotonic() - self._looked

    def failed(self, model: Model, reason: str) -> None:
        """Count a request for which `model` gave no probability; alert for the first one of each version."""
        self._metrics.failed()
        if self._failing is not model:
            self._failing = model
            self._alerts.failing(model.version, reason)

    def _serves(self, champion: Version) -> bool:
        """Whether this version is served.

        A stored model has only its version number, and the number may come from another registry. The card of the model
        is therefore compared once with that in the registry.
        """
        if self.model is None or champion.number != self.model.version:
            return False
        if self._unsure and self.registry.download(champion)[0] != self._unsure:
            return False
        self._unsure = b""
        return True

    def _refused(self, version: int) -> bool:
        return self.refused is not None and self.refused.version == version and time.monotonic() < self._again

    def _swap(self, champion: Version) -> None:
        try:
            package = self.registry.download(champion)
            model = load(self.registry.model, champion.number, *package, self._lock)
        except (UnreachableError, RefusedError):  # the registry failed, which is no reason to refuse the package
            raise
        except LabError as error:
            self._again = time.monotonic() + REFUSED_SECONDS
            refusal = Refused(champion.number, error.message)
            if self.refused != refusal:
                self._metrics.refused()
                self._alerts.refused(champion.number, error.message)
            self.refused = refusal
            raise
        self._serve(model)
        self.fault, self.refused, self._unsure = "", None, b""
        self._store(StoredModel(champion.number, *package))

    def _serve(self, model: Model) -> None:
        self.model = model
        self._metrics.swapped(model.version)
        log.warning("serving %s version %d", self.registry.model, model.version)

    def _store(self, content: StoredModel) -> None:
        """Replace the stored package in one step. On a full disk this model is served, but not after a restart."""
        try:
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._keep.parent, prefix=".keep-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.msgpack.encode(content))
                Path(name).replace(self._keep)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            log.warning("version %d is served but not kept for a restart: %s", content.version, from_os_error(error))

    def _restore(self) -> None:
        for path in self._sources:
            try:
                content = msgspec.msgpack.decode(_read(path), type=StoredModel)
                self._serve(load(self.registry.model, content.version, content.card, content.model, self._lock))
                self._unsure = content.card
            except FileNotFoundError:
                continue
            except (OSError, msgspec.DecodeError, LabError) as error:
                if str(error) != self._unusable.get(path):
                    log.warning("the kept model %s is not used: %s", path, error)
                self._unusable[path] = str(error)
            else:
                return

    def _blame(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("%s", fault)
        self.fault = fault

    def _follow(self, seconds: float) -> None:
        while not self._end.is_set():
            try:
                self.poll()
            except Exception:  # no answer of the registry may end this thread
                log.exception("looking at the champion failed")
                self.fault = "looking at the champion failed; see the API's log"
            self._end.wait(seconds)


def _read(path: Path) -> bytes:
    """The content of the file, up to the largest size that a package may have."""
    with path.open("rb") as file:
        return file.read(CARD_BYTES + MODEL_BYTES + 1_000)
