"""Choose the engine that runs the lab: containers where Docker Compose answers, else processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lab.errors import LabError
from lab.settings import Settings
from launcher import docker, state, supervisor
from launcher.console import Progress
from launcher.services import Service


class Engine(Protocol):
    """The interface of an engine. `launcher.supervisor` and `launcher.docker` are the two engines."""

    NAME: str

    def services(self, settings: Settings) -> list[Service]:
        """The services that people can reach, in the order of the table."""

    def check(self, settings: Settings) -> None:
        """Raise LabError for the first reason why `start` would fail; nothing is started or stopped."""

    def check_table(self, settings: Settings, progress: Progress) -> None:
        """Raise LabError unless the problem's table is valid. The check writes nothing."""

    def start(self, settings: Settings, progress: Progress) -> None:
        """Start services that do not run, restart those with other settings, and wait until all are healthy.

        Raises LabError with the log of a service that does not start.
        """

    def states(self, settings: Settings) -> dict[str, str]:
        """The state of each service that is not stopped, by name: "up" when the service is healthy."""

    def outdated(self, settings: Settings) -> bool:
        """Whether the running services were started with other settings, or for another problem."""

    def store(self, settings: Settings) -> str:
        """The place of S3's data, as text for a message."""

    def train(self, settings: Settings, options: Sequence[str] = ()) -> None:
        """Run the pipeline on this engine; the options are those of `trainer promote`."""

    def run_trainer(self, settings: Settings, words: Sequence[str]) -> int:
        """Run `python` with these words on this engine, as the trainer; return its exit status."""

    def log_end(self, settings: Settings, name: str, lines: int = 15) -> str:
        """The last lines of a service's own log."""

    def follow(self, settings: Settings, names: list[str]) -> None:
        """Show the logs as they grow, until interrupted."""

    def stop(self, settings: Settings) -> bool:
        """Stop everything and keep the state; return whether anything ran."""

    def remove(self, settings: Settings) -> None:
        """Stop everything and remove what this engine stores outside of .lab."""


def choose(settings: Settings) -> Engine:
    """The engine for `make up`: that of ENGINE, else that of the stored state, else docker where docker works.

    Raises LabError when the engine in ENGINE does not work here, or did not make the state.
    """
    name, before = str(settings.engine), state.made_by()
    if before and name not in ("auto", before):
        raise LabError(
            f"the models and runs of this lab are in the {before} engine, not in {name}",
            f"use that engine: make up ENGINE={before}; or remove its state: make reset",
        )
    if name == "auto":
        name = before or ("embedded" if docker.fault() else "docker")
    return _named(name)


def present(settings: Settings) -> Engine:
    """The engine that made this lab's state, also when ENGINE differs; without state, the engine of `make up`."""
    before = state.made_by()
    return _named(before) if before else choose(settings)


def _named(name: str) -> Engine:
    if name == "docker":
        if fault := docker.fault():
            raise LabError(fault.message, fault.remedy)
        return docker
    return supervisor
