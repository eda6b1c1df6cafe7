"""python -m monitor.simulate: run the scenarios, print their tables, and write docs/watching.md and its plot."""

from __future__ import annotations

import argparse

from lab import problem
from lab.errors import LabError
from lab.errors import run as run_main
from lab.settings import ROOT
from monitor.simulate import drift, scenarios
from monitor.simulate.plot import draw

PAGE, PLOT = ROOT / "docs" / "watching.md", ROOT / "docs" / "watching.png"
BEGIN, END = "<!-- simulate:begin -->", "<!-- simulate:end -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m monitor.simulate", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_500, help="runs of each scenario")
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--short", action="store_true", help="a tenth of the labels, and nothing is written")
    options = parser.parse_args()
    results = scenarios.run(options.runs, options.seed, options.short)
    table = drift.read(problem.load(ROOT / "params.yaml"))
    days, shifts = (20, 20) if options.short else (1_000, 300)
    text = f"{scenarios.page(results)}\n{drift.page(drift.run(table, days, shifts, options.seed))}"
    print(text)
    if not options.short:
        before, begin, rest = PAGE.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise LabError(f"{PAGE} has no place for the figures", f"put {BEGIN} and {END} into it")
        draw(results, PLOT)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    return 0


if __name__ == "__main__":
    run_main(main)
