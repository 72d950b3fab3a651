"""What lists of invocations filter by (docs/reference/filters.md), for our plain SQL."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean, DateTime, Integer, Text, Uuid, and_, column, literal_column, table
from sqlalchemy.dialects.postgresql import JSONB, psycopg

from faas.v1.invocation_pb2 import Invocation
from services import filters, ids
from services.filters import Choices, Condition, Fields
from services.invocations.partitions import CLOCKS, id_at

_INVOCATIONS = table(
    "invocations",
    column("id", Uuid),
    column("function_id", Uuid),
    column("function_name", Text),
    column("function_version", Integer),
    column("status", Text),
    column("attempt", Integer),
    column("labels", JSONB),
    column("created_at", DateTime(timezone=True)),
)
_ROW: Any = _INVOCATIONS.c
# Written as the indexes have it.
_ERROR_CODE: Any = literal_column("(error ->> 'code')", Text)
_LABELLED: Condition = literal_column("labels <> '{}'", Boolean)
_DIALECT: Any = psycopg.dialect()  # type: ignore[no-untyped-call]


def _names(names: list[str]) -> dict[str, str]:
    return {name: name for name in names if not name.endswith("_UNSPECIFIED")}


def _narrow_moment(comparator: str, value: str) -> Condition | None:
    """Ids have the time in them, and partitions are ranges of ids."""
    moment = filters.moment("created_at", value)
    found: Condition | None = None
    if comparator in (">", ">=", "="):
        found = _ROW.id >= id_at(moment, -CLOCKS)
    if comparator in ("<", "<=", "="):
        before = _ROW.id < id_at(moment, CLOCKS)
        found = before if found is None else and_(found, before)
    return found


def _narrow_attempt(comparator: str, value: str) -> Condition | None:
    """Few have more than one start, and those have an index."""
    number = filters.integer("attempt", value)
    least = {"=": number, ">=": number, ">": number + 1}.get(comparator, 0)
    return _ROW.attempt > 1 if least > 1 else None


def _narrow_label(comparator: str, _: str) -> Condition | None:
    """The index of labels is about rows that have any."""
    return _LABELLED if comparator in ("=", ":") else None


FIELDS = Fields(
    texts={"function_name": _ROW.function_name},
    numbers={"attempt": _ROW.attempt, "function_version": _ROW.function_version},
    moments={"created_at": _ROW.created_at},
    choices={
        "status": Choices(_ROW.status, {n: n.lower() for n in _names(Invocation.Status.keys())}),
        "error.code": Choices(_ERROR_CODE, _names(Invocation.ErrorCode.keys())),
    },
    identifiers={"function_id": (_ROW.function_id, ids.FUNCTION)},
    labels=_ROW.labels,
    narrow={
        "created_at": _narrow_moment,
        "attempt": _narrow_attempt,
        "labels": _narrow_label,
    },
)


@dataclass(frozen=True)
class Where:
    """A condition on rows of `invocations`, and the values in it."""

    sql: str = "true"
    values: dict[str, Any] = field(default_factory=dict)


def where(text: str) -> Where:
    """The condition in a filter. Raises InvalidFilter."""
    condition = filters.parse_filter(text, FIELDS)
    if condition is None:
        return Where()
    compiled = condition.compile(dialect=_DIALECT)
    return Where(str(compiled), dict(compiled.params))
