"""`python -m launcher up|down|status|logs|reset|train|reproduce|settings`; the Makefile calls it.

`pipeline` and `bucket` are what `train` and `up` need inside a container.
"""

from __future__ import annotations

import argparse
import sys

from lab import errors, settings
from lab.problem import METRICS


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if arguments.command == "settings":
        print(settings.example(), end="")
        return 0
    from launcher import lock

    if arguments.command in lock.COMMANDS:
        with lock.held(arguments.command):
            return _run(arguments)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from lab import s3
    from launcher import commands, pipeline

    if note := settings.ignored():
        print(note, file=sys.stderr)
    if arguments.command == "up":
        commands.up()
    elif arguments.command == "status":
        return commands.status()
    elif arguments.command == "logs":
        commands.logs(arguments.service, arguments.follow)
    elif arguments.command == "down":
        commands.down()
    elif arguments.command == "reset":
        commands.reset(arguments.yes)
    elif arguments.command == "train":
        commands.train(_options(arguments))
    elif arguments.command == "reproduce":
        return commands.reproduce(arguments.version)
    elif arguments.command == "bucket":
        s3.ensure_bucket(settings.load())
    else:
        pipeline.run(settings.load(), _options(arguments))
    return 0


def _options(arguments: argparse.Namespace) -> list[str]:
    """The options of `trainer promote`. A container does not know the person's name, so that it is given here."""
    from lab import ledger

    options = ["--by", arguments.by or ledger.person()]
    options += ["--metric", arguments.metric] if arguments.metric else []
    return options + [f"--{name}" for name in ("accept", "retry") if getattr(arguments, name)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description="The lab's services and pipeline.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the lab, and train a first champion if there is none")
    commands.add_parser("status", help="what runs, where, and how to sign in")
    logs = commands.add_parser("logs", help="the end of the services' logs")
    logs.add_argument("service", nargs="?", default="")
    logs.add_argument("--follow", action="store_true")
    commands.add_parser("down", help="stop everything, keep the state")
    reset = commands.add_parser("reset", help="remove the state")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    for name, text in (
        ("train", "run the pipeline and choose the champion"),
        ("pipeline", "the same, here, whatever the engine"),
    ):
        train = commands.add_parser(name, help=text)
        train.add_argument("--metric", default="", choices=["", *METRICS], help="instead of choice.metric")
        train.add_argument("--accept", action="store_true", help="promote a candidate that would be held")
        train.add_argument("--retry", action="store_true", help="let a recipe that was rolled back compete again")
        train.add_argument("--by", default="", help="the person's name for the ledger; default: the user's")
    reproduce = commands.add_parser("reproduce", help="rebuild a registered version and compare")
    reproduce.add_argument("--version", type=int, required=True)
    commands.add_parser("bucket", help="make the bucket if it is missing")
    commands.add_parser("settings", help="every setting, as .env.example")
    return parser


if __name__ == "__main__":
    errors.run(main)
