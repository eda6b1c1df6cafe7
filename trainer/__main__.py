"""`python -m trainer check|ingest|validate|train|fresh|promote|reproduce`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from lab import errors, ledger, problem, settings
from lab.problem import METRICS
from trainer.results import Paths, write_json


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if note := settings.ignored():
        print(note, file=sys.stderr)
    values = settings.load()
    params = Path(arguments.params).resolve() if arguments.params else values.params_path
    definition, paths = problem.load(params), Paths(params.parent)
    if arguments.command == "check":
        from trainer import evaluate, ingest, train

        for name, candidate in definition.candidates.items():
            evaluate.build(definition, name, candidate)
        with tempfile.TemporaryDirectory(prefix="lab-check-") as folder:
            elsewhere = Paths(Path(folder))
            columns, rows = ingest.ingest(definition)
            ingest.write(columns, rows, elsewhere.dataset)
            print(f"{len(train.dataset(definition, elsewhere))} rows are valid")
    elif arguments.command == "ingest":
        from trainer import ingest

        columns, rows = ingest.ingest(definition)
        ingest.write(columns, rows, paths.dataset)
        print(f"{len(rows)} rows ingested from {definition.source.path}")
    elif arguments.command == "validate":
        from trainer import train, validate

        figures = validate.report(definition, train.dataset(definition, paths))
        write_json(paths.validation, figures)
        print(f"{figures['rows']} rows are valid; {figures['duplicate_rows']} repeat another row whole")
    elif arguments.command == "train":
        from trainer import train

        train.train(values, definition, paths)
    elif arguments.command == "fresh":
        from trainer.promote import check_fresh
        from trainer.results import read_results

        check_fresh(definition, paths, read_results(paths))
    elif arguments.command == "promote":
        from trainer.promote import Person, promote

        choice = definition.choice
        if arguments.metric:
            choice = msgspec.structs.replace(choice, metric=arguments.metric)
        person = Person(arguments.by or ledger.person(), accept=arguments.accept, retry=arguments.retry)
        promote(values, definition, paths, choice, person)
    else:
        from trainer.reproduce import reproduce

        return 0 if reproduce(values, definition, arguments.version) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Data in, champion out.")
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "check": "build the candidates and check the source file against params.yaml; write nothing",
        "ingest": "source file to dataset",
        "validate": "hold the dataset against the problem",
        "train": "evaluate, fit and export the candidates",
        "fresh": "fail unless the trained models are those of the present data, parameters, code and packages",
        "promote": "promote or reject the best candidate",
        "reproduce": "rebuild a registered version and compare",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--params", help="the problem; default: the setting PARAMS")
        if name == "promote":
            command.add_argument("--metric", choices=METRICS, help="instead of choice.metric")
            command.add_argument("--accept", action="store_true", help="promote a candidate that would be held")
            command.add_argument("--retry", action="store_true", help="let a recipe that was rolled back compete again")
            command.add_argument("--by", default="", help="the person's name for the ledger; default: the user's")
        if name == "reproduce":
            command.add_argument("--version", type=int, required=True, help="number of the version")
    return parser


if __name__ == "__main__":
    errors.run(main)
