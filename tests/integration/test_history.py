"""Pages of the history: what filters find, and which indexes they use."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.errors import InvalidFilter
from services.ids import FUNCTION, new_uuid, show
from services.invocations.database import Database
from services.invocations.filters import Where, where
from services.invocations.history import History
from services.invocations.partitions import Partitions, id_at
from services.invocations.records import Ending, Record, Records
from tests.integration.invocations import (
    accepted,
    boot,
    database,
    records,
    running,
)

__all__ = ["boot", "database", "records"]


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


async def test_pages_are_stable_while_new_ones_arrive(records: Records, history: History) -> None:
    first = [(await accepted(records)).id for _ in range(5)]
    page = await history.page(limit=2)
    await accepted(records)
    rest = await history.page(limit=10, before=page[-1].id)
    assert [record.id for record in (*page, *rest)] == sorted(first, reverse=True)


async def test_lists_are_filtered_and_leave_out_what_is_large(
    records: Records, history: History, boot: UUID
) -> None:
    function = new_uuid()
    mine = await running(records, boot, function_id=function, payload=b'"large"')
    await accepted(records)
    assert [r.id for r in await history.page(limit=9, function_id=function)] == [mine.id]
    assert [r.id for r in await history.page(limit=9, status="running")] == [mine.id]
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    assert len(await history.page(limit=9, created_after=now - hour)) == 2
    assert await history.page(limit=9, created_after=now + hour) == []
    assert await history.page(limit=9, created_before=now - hour) == []
    assert (await history.page(limit=9, function_id=function))[0].payload == b""


# What each filter finds of the records that `_some` makes: by their names.
FOUND = [
    ("", "abcd"),
    ("function_name = b", "b"),
    ("function_name != b", "acd"),
    ("function_name : A OR function_name >= c", "cd"),
    ("status = COMPLETED", "a"),
    ("status = pending OR status = RUNNING", "bd"),
    ("NOT status = COMPLETED", "bcd"),
    ("status != COMPLETED", "bcd"),
    ("error.code = FUNCTION_ERROR", "c"),
    ("error.code != FUNCTION_ERROR", "abd"),
    ("NOT error.code = FUNCTION_ERROR", "abd"),
    ("error.code : *", "c"),
    ("-error.code : *", "abd"),
    ("labels.team = x", "a"),
    ("NOT labels.team = x", "bcd"),
    ("labels.team : *", "ab"),
    ("labels.team != x AND labels.team : *", "b"),
    ("attempt = 0", "b"),
    ("attempt >= 1", "acd"),
    ("attempt > 1", "d"),
    ("attempt = 2", "d"),
    ("NOT attempt = 2", "abc"),
    ("attempt > -5", "abcd"),
    ("function_version = 7", "d"),
    ("function_version < 7", "abc"),
    ("function_id = {d}", "d"),
    ("function_id != {d}", "abc"),
    ("created_at > {before}", "abcd"),
    ("created_at < {before}", ""),
    ("NOT created_at < {before}", "abcd"),
    ("created_at = {moment}", "c"),
    ("created_at >= {moment} status = FAILED", "c"),
    ("created_at <= 0001-01-01T00:00:00Z", ""),
    ("created_at < 9999-12-31T23:59:59Z", "abcd"),
    ("attempt > 0 AND status = COMPLETED OR status = FAILED", "ac"),
]


async def _some(records: Records, boot: UUID) -> dict[str, Record]:
    a = await running(records, boot, function_name="a", labels={"team": "x"})
    await records.conclude(a.id, 1, boot, Ending("completed", result=b"1"))
    b = await accepted(records, function_name="b", labels={"team": "y"})
    c = await running(records, boot, function_name="c")
    error = {"code": "FUNCTION_ERROR", "message": "x"}
    await records.conclude(c.id, 1, boot, Ending("failed", error=error))
    d = await running(records, boot, function_name="d", function_version=7)
    await records.lose(boot, [d.id], {"code": "WORKER_LOST", "message": "x"})
    d_again = await records.grant(d.id, new_uuid(), boot, uuid4())
    assert d_again is not None
    return {"a": a, "b": b, "c": c, "d": d}


async def test_filters_find(records: Records, history: History, boot: UUID) -> None:
    some = await _some(records, boot)
    values = {
        "d": show(FUNCTION, some["d"].function_id),
        "before": (some["a"].created_at - timedelta(seconds=1)).isoformat(),
        "moment": some["c"].created_at.isoformat(),
    }
    for text, names in FOUND:
        page = await history.page(limit=10, where=where(text.format(**values)))
        assert "".join(sorted(r.function_name for r in page)) == names, text
        assert [r.id for r in page] == sorted((r.id for r in page), reverse=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("status = done", "status is one of PENDING"),
        ("status > FAILED", "does not go with status"),
        ("status = STATUS_UNSPECIFIED", "status is one of"),
        ("error.code = OOM", "error.code is one of FUNCTION_ERROR"),
        ("error = x", "no field 'error'"),
        ("error.message = x", "no field 'error.message'"),
        ("payload : x", "no field 'payload'"),
        ("function_id = echo", "function_id is compared with 'func-' and a UUID"),
        ("function_id < func-1", "does not go with function_id"),
        ("attempt = many", "attempt is compared with an integer"),
        ("created_at > today", "created_at is compared with a moment"),
        ("labels = x", "no field 'labels'"),
        ("namespace = x", "no field 'namespace'"),
    ],
)
def test_a_wrong_filter_is_refused_and_named(text: str, told: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        where(text)
    assert told in caught.value.message


def test_values_are_bound() -> None:
    text = "'; DROP TABLE invocations; --"
    assert where(f'function_name = "{text}" OR labels."{text}" = "{text}"').sql.count("DROP") == 0


def test_ids_of_all_moments() -> None:
    assert id_at(datetime(1, 1, 1, tzinfo=UTC)) == UUID(int=0)
    assert id_at(datetime(9999, 12, 31, tzinfo=UTC)).int >> 80 == 253402214400000
    assert id_at(datetime.now(UTC) - timedelta(milliseconds=1)) < new_uuid()


INDEXES = {
    "": "pkey",
    "function_name = f7": "function_name_id",
    "status = FAILED": "status_id",
    "error.code = OUT_OF_MEMORY": "expr_id",
    "labels.n = 55": "labels",
    "attempt = 2": "id_idx",
    "attempt > 1": "id_idx",
}


async def test_filters_use_their_indexes(
    records: Records, history: History, database: Database
) -> None:
    """On a day of 20,000 records: as the planner sees it, whatever the machine."""
    today = datetime.now(UTC).date()
    await Partitions(database, retention_days=30).ensure(today)
    day = f"invocations_{today:%Y%m%d}"
    start = id_at(datetime(today.year, today.month, today.day, tzinfo=UTC))
    rows = [
        {
            "id": str(UUID(int=start.int + (n << 64))),
            "name": f"f{n % 1000}",
            "status": "failed" if n % 500 == 0 else "completed",
            "labels": {"n": str(n % 5000)} if n % 10 == 5 else {},
            "attempt": 2 if n % 700 == 0 else 1,
            "error": {"code": "OUT_OF_MEMORY"} if n % 500 == 0 else None,
        }
        for n in range(20_000)
    ]
    await database.fetch(
        """INSERT INTO invocations (id, function_id, function_name, function_version, status,
          payload, payload_type, timeout_ms, labels, attempt, attempt_limit, due_at, error,
          created_at)
        SELECT id, id, name, 1, status, '', 'a/b', 1, labels, attempt, 1, now(), error, now()
        FROM jsonb_to_recordset(%(rows)s::jsonb) AS
          row (id uuid, name text, status text, labels jsonb, attempt int, error jsonb)""",
        {"rows": json.dumps(rows)},
    )
    await database.fetch("ANALYZE invocations")
    for text, index in INDEXES.items():
        plan = await _plan(database, where(text))
        assert any(day in line and index in line for line in plan), (text, plan)
        assert not any(f"Seq Scan on {day}" in line for line in plan), (text, plan)
    # Other days are not looked at.
    bound = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    old = await _plan(database, where(f"created_at > {bound}"))
    far = f"invocations_{today + timedelta(days=7):%Y%m%d}"
    assert any(far in line for line in old)
    until = await _plan(database, where(f"created_at < {bound}"))
    assert not any(far in line for line in until), until


async def _plan(database: Database, condition: Where) -> list[str]:
    query = f"EXPLAIN SELECT id FROM invocations WHERE {condition.sql} ORDER BY id DESC LIMIT 51"
    rows = await database.fetch(query, condition.values, prepare=False)
    return [row["QUERY PLAN"] for row in rows]
