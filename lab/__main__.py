"""`python -m lab up|down|status|logs|reset|train|settings`; the Makefile calls it."""

from __future__ import annotations

import argparse

from lab import errors, settings
from lab.problem import METRICS


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if arguments.command == "settings":
        print(settings.example(), end="")
        return 0
    from lab import engine, pipeline, up

    if arguments.command == "up":
        up.up()
    elif arguments.command == "status":
        return up.status()
    elif arguments.command == "logs":
        up.logs(arguments.service, arguments.follow)
    elif arguments.command == "down":
        up.down()
    elif arguments.command == "reset":
        up.reset(arguments.yes)
    else:
        values = settings.load()
        pipeline.run(values, arguments.metric)
        if engine.processes() is not None and engine.outdated(values):
            print("note: the services were started with other settings; `make up` restarts them with these")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab's services and pipeline.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the lab, and train a first champion if there is none")
    commands.add_parser("status", help="what runs, where, and how to sign in")
    logs = commands.add_parser("logs", help="the end of the services' logs")
    logs.add_argument("service", nargs="?", default="")
    logs.add_argument("--follow", action="store_true")
    commands.add_parser("down", help="stop everything, keep the state")
    reset = commands.add_parser("reset", help="remove the state")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    train = commands.add_parser("train", help="run the pipeline and choose the champion")
    train.add_argument("--metric", default="", choices=["", *METRICS], help="instead of choice.metric")
    commands.add_parser("settings", help="every setting, as .env.example")
    return parser


if __name__ == "__main__":
    errors.run(main)
