"""Print the findings of `make new`: one table with a row for each column, and the warnings."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from lab.record import is_number, listed
from trainer.draft.file import File
from trainer.draft.plan import Plan
from trainer.draft.text import recall


def show(file: File, plan: Plan) -> None:
    """Print every column with its place in params.yaml, its values, its missing cells and a remark."""
    target = plan.target
    table = Table("column", "becomes", "values", "missing", "remark", box=box.SIMPLE_HEAD, show_edge=False)
    for column, name in zip(file.names, plan.names, strict=True):
        remark = f"is called {name}" if name != column else ""
        table.add_row(column, *_row(plan, name, remark))
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
    share = target.positives / target.rows
    print(
        f"{target.rows:,} rows, {target.positives:,} of them {target.positive} ({share:.1%}); "
        f"the decision threshold is to find {recall(plan):.0%} of those"
    )


def _row(plan: Plan, name: str, remark: str) -> list[str]:
    target = plan.target
    if name not in plan.columns:
        values = ", ".join(f"{value} ({count:,})" for value, count in list(target.values.items())[:5])
        return ["target", values, "", remark or f"{target.positive} is the positive class; POSITIVE= names another"]
    column = plan.columns[name]
    lacking = target.rows - column.filled
    missing = f"{lacking:,} ({lacking / target.rows:.0%})" if lacking else ""
    if column.marks:
        remark = "; ".join(filter(None, [remark, f"{', '.join(column.marks)} means missing"]))
    if name in plan.unused:
        return ["left out", f"{column.distinct:,} different", missing, plan.unused[name]]
    if name == plan.id:
        return ["id", f"{column.distinct:,} different", missing, remark or "the model does not see it"]
    if name == plan.date:
        return ["groups", f"{column.months} months", missing, remark or "each month is a group of rows"]
    feature = plan.features[name]
    if is_number(feature):
        return [feature.type, f"{column.low:.6g} to {column.high:.6g}", missing, remark]
    return [feature.type, listed(feature.levels) or "false, true", missing, remark]
