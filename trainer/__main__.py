"""`python -m trainer new|check|ingest|validate|train|fresh|promote|reproduce|collect`."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import msgspec

from lab import errors, ledger, problem, settings
from lab.problem import METRICS, Problem
from lab.settings import Settings
from trainer.results import Paths, write_json


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if note := settings.ignored():
        print(note, file=sys.stderr)
    if arguments.func is _new:
        _new(arguments)
        return 0
    values = settings.load()
    params = Path(arguments.params).resolve() if arguments.params else values.params_path
    status: int | None = arguments.func(arguments, values, problem.load(params), Paths(params.parent))
    return status or 0


# Each command imports its modules itself, because scikit-learn, pandas and MLflow take seconds to import.


def _new(arguments: Namespace) -> None:
    from trainer.draft.new import new

    if not arguments.table or not arguments.target:
        raise errors.LabError("make new needs a file and a column", "make new TABLE=path/to/file.csv TARGET=column")
    new(Path(arguments.table), arguments.target, arguments.positive, arguments.name)


def _check(_: Namespace, _values: Settings, definition: Problem, _paths: Paths) -> None:
    from trainer import evaluate, ingest, train

    for name, candidate in definition.candidates.items():
        evaluate.build(definition, name, candidate)
    with tempfile.TemporaryDirectory(prefix="lab-check-") as folder:
        elsewhere = Paths(Path(folder))
        columns, rows = ingest.ingest(definition)
        ingest.write(columns, rows, elsewhere.dataset)
        print(f"{len(train.dataset(definition, elsewhere))} rows are valid")


def _ingest(_: Namespace, _values: Settings, definition: Problem, paths: Paths) -> None:
    from trainer import ingest

    columns, rows = ingest.ingest(definition)
    ingest.write(columns, rows, paths.dataset)
    print(f"{len(rows)} rows ingested from {definition.source.path}")


def _validate(_: Namespace, _values: Settings, definition: Problem, paths: Paths) -> None:
    from trainer import train, validate

    figures = validate.report(definition, train.dataset(definition, paths))
    write_json(paths.validation, figures)
    print(f"{figures['rows']} rows are valid; {figures['duplicate_rows']} repeat another row whole")


def _train(_: Namespace, values: Settings, definition: Problem, paths: Paths) -> None:
    from trainer import train

    train.train(values, definition, paths)


def _fresh(_: Namespace, _values: Settings, definition: Problem, paths: Paths) -> None:
    from trainer.promote import check_fresh
    from trainer.results import read_results

    check_fresh(definition, paths, read_results(paths))


def _promote(arguments: Namespace, values: Settings, definition: Problem, paths: Paths) -> None:
    from trainer.promote import Person, promote

    choice = definition.choice
    if arguments.metric:
        choice = msgspec.structs.replace(choice, metric=arguments.metric)
    person = Person(arguments.by or ledger.person(), accept=arguments.accept, retry=arguments.retry)
    promote(values, definition, paths, choice, person)


def _reproduce(arguments: Namespace, values: Settings, definition: Problem, _: Paths) -> int:
    from trainer.reproduce import reproduce

    return 0 if reproduce(values, definition, arguments.version) else 1


def _collect(arguments: Namespace, _values: Settings, definition: Problem, _paths: Paths) -> None:
    from lab.collection import PROPOSAL
    from trainer.announce import events_folder
    from trainer.collect import propose

    proposal = propose(definition, events_folder(), arguments.until_month)
    PROPOSAL.parent.mkdir(mode=0o700, exist_ok=True)
    PROPOSAL.write_bytes(msgspec.json.encode(proposal))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m trainer", description="Data in, champion out.")
    commands = parser.add_subparsers(required=True)

    def add(func: Callable[[Namespace, Settings, Problem, Paths], int | None], text: str) -> ArgumentParser:
        """A command with the name of its function, and this help."""
        command = commands.add_parser(func.__name__[1:], help=text, description=text)
        command.add_argument("--params", help="the problem; default: the setting PARAMS")
        command.set_defaults(func=func)
        return command

    add(_check, "build the candidates and check the source file against params.yaml; write nothing")
    add(_ingest, "make the dataset from the source file")
    add(_validate, "check the dataset against the problem")
    add(_train, "evaluate, fit and export the candidates")
    add(_fresh, "fail unless the trained models are those of the present data, parameters, code and packages")
    command = add(_promote, "promote, hold or reject the best candidate")
    command.add_argument("--metric", choices=METRICS, help="instead of choice.metric")
    command.add_argument("--accept", action="store_true", help="promote a candidate that would be held")
    command.add_argument("--retry", action="store_true", help="let a recipe that was rolled back compete again")
    command.add_argument("--by", default="", help="the person's name for the ledger; default: the user's")
    add(_reproduce, "rebuild a registered version and compare").add_argument(
        "--version", type=int, required=True, help="number of the version"
    )
    command = commands.add_parser("new", help="look at a table and write a first params.yaml")
    command.add_argument("--table", required=True, help="a CSV or Parquet file")
    command.add_argument("--target", required=True, help="the column to predict")
    command.add_argument("--positive", default="", help="the value of the positive class")
    command.add_argument("--name", default="", help="the name of the new folder; default: the file's")
    command.set_defaults(func=_new)
    add(_collect, "write a proposal of labelled live records for `make collect`").add_argument(
        "--until-month", default="", help="the last month, as in 2026-11"
    )
    return parser


if __name__ == "__main__":
    errors.run(main)
