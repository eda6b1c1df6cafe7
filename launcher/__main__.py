"""`python -m launcher up|down|status|logs|reset|train|reproduce|collect|settings`; the Makefile calls it.

`pipeline` and `bucket` run inside a container, for `train` and `up`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from lab import errors, settings
from lab.problem import METRICS


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if arguments.locked:
        from launcher import lock

        with lock.held(arguments.command):
            return _run(arguments)
    return _run(arguments)


def _run(arguments: Namespace) -> int:
    if arguments.command != "settings" and (note := settings.ignored()):
        print(note, file=sys.stderr)
    status: int | None = arguments.func(arguments)
    return status or 0


# Each command imports its modules itself, because some of them are slow to import.


def _up(_: Namespace) -> None:
    from launcher import commands

    commands.up()


def _status(_: Namespace) -> int:
    from launcher import commands

    return commands.status()


def _logs(arguments: Namespace) -> None:
    from launcher import commands

    commands.logs(arguments.service, arguments.follow)


def _down(_: Namespace) -> None:
    from launcher import commands

    commands.down()


def _reset(arguments: Namespace) -> None:
    from launcher import commands

    commands.reset(arguments.yes)


def _train(arguments: Namespace) -> None:
    from launcher import commands

    commands.train(_options(arguments))


def _pipeline(arguments: Namespace) -> None:
    from launcher import pipeline

    pipeline.run(settings.load(), _options(arguments))


def _reproduce(arguments: Namespace) -> int:
    from launcher import commands

    return commands.reproduce(arguments.version)


def _collect(arguments: Namespace) -> None:
    from launcher import collect

    collect.collect(arguments.until_month, arguments.yes)


def _bucket(_: Namespace) -> None:
    from lab import s3

    s3.ensure_bucket(settings.load())


def _settings(_: Namespace) -> None:
    print(settings.example(), end="")


def _options(arguments: Namespace) -> list[str]:
    """The options of `trainer promote`. A container does not know the person's name, so the launcher passes it."""
    from lab import ledger

    options = ["--by", arguments.by or ledger.person()]
    options += ["--metric", arguments.metric] if arguments.metric else []
    return options + [f"--{name}" for name in ("accept", "retry") if getattr(arguments, name)]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m launcher", description="The lab's services and pipeline.")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(func: Callable[[Namespace], int | None], text: str, *, locked: bool = False) -> ArgumentParser:
        """A command with the name of its function. Only one `locked` command runs at a time."""
        command = commands.add_parser(func.__name__[1:], help=text, description=text)
        command.set_defaults(func=func, locked=locked)
        return command

    add(_up, "start the lab, and train a first champion if there is none", locked=True)
    add(_status, "state and address of each service, and how to sign in")
    logs = add(_logs, "the end of the services' logs")
    logs.add_argument("service", nargs="?", default="")
    logs.add_argument("--follow", action="store_true")
    add(_down, "stop everything, keep the state", locked=True)
    add(_reset, "remove the state", locked=True).add_argument("--yes", action="store_true", help="do not ask")
    for train in (
        add(_train, "run the pipeline and choose the champion", locked=True),
        add(_pipeline, "the same in this process, on any engine"),
    ):
        train.add_argument("--metric", default="", choices=["", *METRICS], help="instead of choice.metric")
        train.add_argument("--accept", action="store_true", help="promote a candidate that would be held")
        train.add_argument("--retry", action="store_true", help="let a recipe that was rolled back compete again")
        train.add_argument("--by", default="", help="the person's name for the ledger; default: the user's")
    add(_reproduce, "rebuild a registered version and compare").add_argument("--version", type=int, required=True)
    collect = add(_collect, "add labelled live records to the dataset after asking", locked=True)
    collect.add_argument("--until-month", default="", help="the last month to collect, as in 2026-11")
    collect.add_argument("--yes", action="store_true", help="do not ask")
    add(_bucket, "make the bucket if it is missing")
    add(_settings, "every setting, as .env.example")
    return parser


if __name__ == "__main__":
    errors.run(main)
