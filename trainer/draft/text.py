"""The text of a first params.yaml, with comments that teach."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from lab.problem import Feature
from trainer.draft.file import File
from trainer.draft.plan import Plan, missing_marks

WIDTH = 118


def compose(name: str, title: str, path: str, digest: str, file: File, plan: Plan, floor: float) -> str:
    """The text of params.yaml for the file at `path`, relative to the root of the lab."""
    return (
        "\n\n".join(
            [
                _head(name, title, path),
                _source(path, digest, file, plan),
                _rows(plan),
                _target(plan),
                _features(plan),
                _candidates(plan),
                _evaluation(plan),
                _choice(plan, floor),
                _threshold(plan),
            ]
        )
        + "\n"
    )


def _head(name: str, title: str, path: str) -> str:
    folder = "/".join(path.split("/")[:2])
    return (
        f"# A first draft, made by `make new`. Read it, correct it, then: make up PARAMS={folder}/params.yaml\n"
        "# docs/params.md has every field.\n\n"
        f"name: {name}\ntitle: {_text(title)}"
    )


def _source(path: str, digest: str, file: File, plan: Plan) -> str:
    lines = ["source:", f"  path: {_text(path)}", f"  sha256: {digest}"]
    if not file.header:
        lines.append("  header: false")
    if file.separator != ",":
        lines.append(f"  separator: {_text(file.separator)}")
    if file.decimal != ".":
        lines.append(f"  decimal: {_text(file.decimal)}")
    if file.encoding != "utf-8":
        lines.append(f"  encoding: {file.encoding}")
    if marks := missing_marks(plan):
        lines += _wrapped("  missing: ", marks, "  # these texts, and an empty cell, mean that there is no value")
    if plan.names != file.names or not file.header:
        lines.append(
            "  # Names for the columns in the order of the file; the model, the API and the dashboard use them."
        )
        lines += _wrapped("  columns: ", plan.names)
    if plan.unused:
        lines.append("  # Columns that the lab does not read. Make a feature of one by moving it to features.")
        lines.append("  unused:")
        lines += [f"    - {_text(name)}  # {reason}" for name, reason in plan.unused.items()]
    if plan.date:
        form = f", format: {_text(file.date_format)}" if file.date_format else ""
        lines += [
            "  # The months of this column are the dated groups: data.until takes an earlier revision of the data.",
            f"  groups: {{column: {_text(plan.date)}, by: month{form}}}",
        ]
    return "\n".join(lines)


def _rows(plan: Plan) -> str:
    until = (
        "# a month, such as 2026-11; the groups after it are left out" if plan.date else "# there are no dated groups"
    )
    identifier = "# names each row; the model does not see it" if plan.id else "# no column names the rows"
    return f'data: {{until: ""}}  {until}\n\nid: {_text(plan.id)}  {identifier}'


def _target(plan: Plan) -> str:
    target, negatives = plan.target, plan.target.negatives
    label = negatives[0] if len(negatives) == 1 else f"not {target.positive}"
    value = _text(negatives[0]) if len(negatives) == 1 else f"[{', '.join(map(_text, negatives))}]"
    place = target.column.place
    return (
        "# The positive class is the one to find. A label is what the API answers: write words that people use.\n"
        f"target:\n  column: {_text(plan.names[place])}\n"
        f"  negative: {{value: {value}, label: {_text(label)}}}\n"
        f"  positive: {{value: {_text(target.positive)}, label: {_text(target.positive)}}}"
    )


def _features(plan: Plan) -> str:
    lines = [
        "# The API refuses a record with a value outside of these. The bounds of a number are what the table has and a",
        "# margin: write the least and the greatest value that can really occur. nullable allows a missing value.",
        "features:",
    ]
    for name, feature in plan.features.items():
        lines += _feature(name, feature)
    return "\n".join(lines)


def _feature(name: str, feature: Feature) -> list[str]:
    parts = [f"type: {feature.type}"]
    if feature.type in ("integer", "real"):
        parts += [f"min: {_number(feature.min)}", f"max: {_number(feature.max)}"]
    parts += ["nullable: true"] if feature.nullable else []
    parts += [f"label: {_text(feature.label)}"] if feature.label not in (name, name.replace("_", " ")) else []
    key = f"  {_text(name)}:"
    if not feature.levels:
        return [f"{key} {{{', '.join(parts)}}}"]
    levels = ", ".join(_text(str(level)) for level in feature.levels)
    line = f"{key} {{{', '.join([*parts, f'levels: [{levels}]'])}}}"
    if len(line) <= WIDTH:
        return [line]
    return [key, *(f"    {part}" for part in parts), *_wrapped("    levels: ", [str(v) for v in feature.levels])]


def _candidates(plan: Plan) -> str:
    rows = plan.target.rows
    if rows < 20_000:
        linear, grid = "[0.01, 0.1, 1.0, 10.0]", "{max_leaf_nodes: [7, 31]}"
    else:
        linear, grid = "[0.1, 1.0]", "{max_leaf_nodes: [31]}"
    least = "\n    settings: {min_samples_leaf: 5}" if rows < 500 else ""
    return (
        "# The gate compares the candidates on the same folds. docs/models.md lists what else can be served.\n"
        "candidates:\n"
        "  logistic-regression:\n    estimator: sklearn.linear_model.LogisticRegression\n"
        f"    settings: {{max_iter: 1000}}\n    grid: {{C: {linear}}}\n"
        f"  boosted-trees:\n    estimator: sklearn.ensemble.HistGradientBoostingClassifier{least}\n    grid: {grid}"
    )


def folds(plan: Plan) -> tuple[int, int, int]:
    """Folds, repeats and inner folds that fit the size. Ten tests or more are needed for a verdict."""
    fewest = min(plan.target.positives, plan.target.rows - plan.target.positives)
    count = min(10 if plan.target.rows < 2_000 else 5, max(3, fewest // 5))
    repeats = math.ceil(10 / count)
    return count, repeats, 2 if count < 5 or plan.target.rows >= 20_000 else 3


def _evaluation(plan: Plan) -> str:
    count, repeats, inner = folds(plan)
    time = (
        "# With `split: time` and `repeats: 1` the candidates are trained on the past and tested on the next months,\n"
        "# which is what they meet when they are served.\n"
        if plan.date
        else ""
    )
    group = f"  group: {_text(plan.id)}  # rows of one {plan.id} are never split\n" if plan.repeated_id else ""
    return (
        f"{time}evaluation:\n  folds: {count}\n"
        f"  repeats: {repeats}  # folds times repeats must be 10 or more for a verdict between two recipes\n"
        f"  inner_folds: {inner}  # the grid search sees the training folds only\n{group}"
        "  seed: 1\n  tune_on: log_loss"
    )


def _choice(plan: Plan, floor: float) -> str:
    share = plan.target.positives / plan.target.rows
    metric = "average_precision" if min(share, 1 - share) < 0.1 else "roc_auc"
    return (
        "choice:\n"
        f"  metric: {metric}  # or: make train METRIC=recall\n"
        "  alpha: 0.05  # a candidate must beat a champion of another recipe at this level\n"
        "  delta: 0.002  # and by at least this lead\n"
        "  # A candidate below a floor never becomes champion. This one is a little below a quick cross-validation.\n"
        f"  floors: {{roc_auc: {floor:g}}}"
    )


def recall(plan: Plan) -> float:
    """The recall to promise: 0.95, or the most that the number of positive rows can promise."""
    most = plan.target.positives / (plan.target.positives + 1)
    return min(0.95, math.floor(most * 100) / 100)


def _threshold(plan: Plan) -> str:
    return (
        "# The decision threshold is the highest one that finds this share of the positives. A lower recall gives\n"
        f"# fewer false alarms: docs/gate.md.\nthreshold:\n  recall: {recall(plan):g}"
    )


def _wrapped(key: str, values: Sequence[str], comment: str = "") -> list[str]:
    """A list on one line, or on several lines that are no longer than WIDTH."""
    line = f"{key}[{', '.join(map(_text, values))}]{comment}"
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    lines, current = [], indent
    for value in values:
        item = f"{_text(value)}, "
        if len(current) + len(item) > WIDTH and current.strip():
            lines.append(current.rstrip())
            current = indent
        current += item
    lines.append(current.rstrip())
    return [f"{key}[{comment}", *lines, f"{indent[:-2]}]"]


def _text(value: str) -> str:
    """A text in double quotes, unless it is a plain name that is read as text."""
    plain = value.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
    if plain.isascii() and plain.isalnum() and value[0].isalpha() and value.lower() not in words:
        return value
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
