"""Read the collected records: labelled live records that `make collect` added to the dataset.

The file is comma separated. Its columns are `prediction_id`, `reported` (the month of the prediction, in UTC), the
features and the target, in the words of the source; a missing value is an empty cell. New rows come at its end.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter

from lab.errors import LabError
from lab.problem import GROUP_COLUMN, MONTH_PATTERN, PREDICTION_COLUMN, Collected, Problem
from lab.record import CONTROL
from lab.settings import ROOT, STATE


def read(problem: Problem) -> list[dict[str, str]]:
    """The collected records in the order of the file, each with its cells by column; empty when there are none.

    Raises LabError for a missing, altered or misshapen file.
    """
    if not problem.source.collected:
        return []
    path = problem.source.collected.path
    try:
        lines = list(csv.reader(io.StringIO(_bytes(problem.source.collected).decode(), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise _misshapen(path, f"it is not comma separated text in UTF-8 ({error})") from error
    header = lines[0] if lines else []
    if not {PREDICTION_COLUMN, GROUP_COLUMN, problem.target.column} <= set(header) or len(set(header)) < len(header):
        raise _misshapen(path, "its header has a column twice, or lacks one")
    if wrong := [number for number, line in enumerate(lines[1:], 1) if len(line) != len(header)]:
        raise _misshapen(path, f"row {wrong[0]} should have {len(header)} columns")
    records = [dict(zip(header, line, strict=True)) for line in lines[1:]]
    for number, record in enumerate(records, 1):
        if not re.fullmatch(MONTH_PATTERN, record[GROUP_COLUMN]) or any(map(CONTROL.search, record.values())):
            raise _misshapen(path, f"row {number} has no month in {GROUP_COLUMN}, or a control character")
    if repeated := [name for name, n in Counter(r[PREDICTION_COLUMN] for r in records).items() if n > 1]:
        raise _misshapen(path, f"the prediction {repeated[0]!r} is in it twice")
    return records


def _bytes(collected: Collected) -> bytes:
    """The content of the file, from DVC's cache when the file itself is missing or has another hash."""
    path = ROOT / collected.path
    for place in (path, STATE / "dvc-cache" / "files" / "md5" / collected.md5[:2] / collected.md5[2:]):
        if place.is_file():
            data = place.read_bytes()
            if hashlib.md5(data, usedforsecurity=False).hexdigest() == collected.md5:
                return data
    fault = "have another MD5 than source.collected.md5 says" if path.exists() else "are missing"
    raise LabError(
        f"the collected records {path} {fault}",
        f"`dvc pull {collected.path}.dvc` fetches them from S3, and `git checkout` of that file and of params.yaml "
        "makes the two agree; to train without the records, remove source.collected",
    )


def _misshapen(path: str, fault: str) -> LabError:
    return LabError(
        f"{path} is not what `make collect` wrote: {fault}",
        f"restore the file of the last commit: `git checkout {path}.dvc`, then `dvc checkout {path}.dvc`",
    )
