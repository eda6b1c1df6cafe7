"""The engines that can run the lab, and which one does: containers where Compose answers, processes elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lab.errors import LabError
from lab.settings import Settings
from launcher import docker, state, supervisor
from launcher.console import Progress
from launcher.services import Service


class Engine(Protocol):
    """What an engine does. Both are modules: `launcher.supervisor` and `launcher.docker`."""

    NAME: str

    def services(self, settings: Settings) -> list[Service]:
        """The services that people can reach, in the order of the table."""

    def check(self, settings: Settings) -> None:
        """Raise LabError for the first thing that would keep `start` from succeeding; nothing is started or stopped."""

    def check_table(self, settings: Settings, progress: Progress) -> None:
        """Raise LabError unless the problem's table is valid; checked where this engine trains, without writing."""

    def start(self, settings: Settings, progress: Progress) -> None:
        """Start what does not run, restart what runs with other settings, and wait until all are healthy.

        Raises LabError with the log of a service that does not start.
        """

    def states(self, settings: Settings) -> dict[str, str]:
        """A word for each service that is not stopped, by name: "up" when it is well."""

    def outdated(self, settings: Settings) -> bool:
        """Whether what runs was started with other settings, or for another problem, than these."""

    def store(self, settings: Settings) -> str:
        """Where S3 keeps the lab's data, in words."""

    def train(self, settings: Settings, options: Sequence[str] = ()) -> None:
        """Run the pipeline where this engine runs it; the options are those of `trainer promote`."""

    def reproduce(self, settings: Settings, version: int) -> int:
        """Rebuild a registered version where this engine trains, compare, and give 0 when it is the same."""

    def log_end(self, settings: Settings, name: str, lines: int = 15) -> str:
        """The last lines of a service's own log."""

    def follow(self, settings: Settings, names: list[str]) -> None:
        """Show the logs as they grow, until interrupted."""

    def stop(self, settings: Settings) -> bool:
        """Stop everything and keep the state; say whether anything ran."""

    def remove(self, settings: Settings) -> None:
        """Stop everything and remove what this engine keeps outside of .lab."""


def choose(settings: Settings) -> Engine:
    """The engine for `make up`: the one asked for, else the one that made the state, else the first that is there.

    Raises LabError when the one asked for is not there, or is not the one that made the state.
    """
    name, before = str(settings.engine), state.made_by()
    if before and name not in ("auto", before):
        raise LabError(
            f"this lab's models and runs are kept by the {before} engine, not by {name}",
            f"go on with it: make up ENGINE={before}; or remove its state first: make reset",
        )
    if name == "auto":
        name = before or ("embedded" if docker.fault() else "docker")
    return _named(name)


def present(settings: Settings) -> Engine:
    """The engine that made this lab's state, whatever ENGINE says; the one for `make up` when there is no state."""
    before = state.made_by()
    return _named(before) if before else choose(settings)


def _named(name: str) -> Engine:
    if name == "docker":
        if fault := docker.fault():
            raise LabError(fault.message, fault.remedy)
        return docker
    return supervisor
