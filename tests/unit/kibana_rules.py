"""The bodies that Kibana takes for an alert rule, after the sources of its routes and of the rule type `.es-query`.

The sources are `alerting/common/routes/rule/apis/{create,update}/schemas` and `rule_params/es_query/v1.ts` in the
repository elastic/kibana. The types here are narrower, because the lab's rules have no action and no connector.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

Duration = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*[smhd]$")]
Word = Annotated[str, msgspec.Meta(min_length=1)]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Query(_Strict, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    timeField: Word  # noqa: N815
    timeWindowSize: Annotated[int, msgspec.Meta(ge=1)]  # noqa: N815
    timeWindowUnit: Literal["s", "m", "h", "d"]  # noqa: N815
    threshold: Annotated[list[float], msgspec.Meta(min_length=1, max_length=2)]
    excludeHitsFromPreviousRun: bool  # noqa: N815
    aggType: Literal["count"]  # noqa: N815


class _Dsl(_Query, tag_field="searchType", tag="esQuery", kw_only=True):
    index: Annotated[list[Word], msgspec.Meta(min_length=1)]
    esQuery: Word  # noqa: N815
    thresholdComparator: Literal[">", ">=", "<", "<="]  # noqa: N815
    groupBy: Literal["all", "top"]  # noqa: N815
    termField: Word | Annotated[list[Word], msgspec.Meta(min_length=2, max_length=4)] | None = None  # noqa: N815
    termSize: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None  # noqa: N815

    def __post_init__(self) -> None:
        if "query" not in json.loads(self.esQuery):
            raise ValueError("esQuery has no query")
        if self.groupBy == "top" and (
            self.termField is None or self.termSize is None or self.excludeHitsFromPreviousRun
        ):
            raise ValueError("groups need termField and termSize, and cannot exclude the hits of the previous run")


class _EsqlText(_Strict):
    esql: Word


class _Esql(_Query, tag_field="searchType", tag="esqlQuery", kw_only=True):
    esqlQuery: _EsqlText  # noqa: N815
    thresholdComparator: Literal[">"]  # noqa: N815
    groupBy: Literal["all", "row"]  # noqa: N815

    def __post_init__(self) -> None:
        if self.threshold != [0]:
            raise ValueError("the threshold of ES|QL is 0")


class _Schedule(_Strict):
    interval: Duration


class _Update(_Strict, kw_only=True):
    name: Word
    tags: list[str]
    schedule: _Schedule
    params: _Dsl | _Esql
    actions: Annotated[list[Any], msgspec.Meta(max_length=0)]


class _Create(_Update, kw_only=True):
    rule_type_id: Literal[".es-query"]
    consumer: Literal["stackAlerts"]
    enabled: bool


def check(body: bytes, method: str, identifier: str) -> None:
    """Raise ValueError unless Kibana takes the body of POST or PUT for a rule with this id.

    A rule has encrypted attributes, and Kibana takes only a UUID of version 1 or 4 as an id for such an object.
    """
    if UUID(identifier).version not in (1, 4) or not re.fullmatch("[0-9a-f-]{36}", identifier):
        raise ValueError(f"{identifier} is no UUID of version 1 or 4")
    try:
        msgspec.json.decode(body, type=_Create if method == "POST" else _Update)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
