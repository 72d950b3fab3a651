"""Counts and latencies, against what the rows themselves say."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from faas.v1.stats_pb2 import GetStatsRequest
from services.errors import FunctionNotFound, InvalidField
from services.ids import FUNCTION, new_uuid, parse
from services.invocations.database import Database
from services.invocations.records import Ending, Records
from services.invocations.stats import PHASES, Counts, Stats
from tests.integration.functions import refused
from tests.integration.invocations import accepted, boot, database, records, running
from tests.mesh import Mesh

__all__ = ["boot", "database", "records"]

NOW = datetime(2026, 3, 4, 5, 36, 20, tzinfo=UTC)


@pytest.fixture
def counts(database: Database) -> Counts:
    return Counts(database, kept_days=30)


async def begin(database: Database, moment: datetime) -> None:
    """As if counting began then."""
    query = "UPDATE invocation_stats_progress SET counted_until = %(moment)s"
    await database.fetch(query, {"moment": moment})


async def ended(database: Database, rows: list[tuple[datetime, UUID, str, float]]) -> None:
    """Records that ended at these moments: function, status and how long each phase took."""
    values = {
        "ids": [new_uuid() for _ in rows],
        "moments": [row[0] for row in rows],
        "functions": [row[1] for row in rows],
        "statuses": [row[2] for row in rows],
        "seconds": [row[3] for row in rows],
    }
    await database.fetch(
        """INSERT INTO invocations (id, function_id, function_name, function_version, status,
          payload, payload_type, timeout_ms, attempt_limit, due_at, created_at, completed_at,
          metrics)
        SELECT id, function, 'f', 1, status, '', 'a/b', 1, 1, moment, moment, moment,
          jsonb_build_object('run_s', seconds, 'queued_s', seconds / 10, 'duration_s', seconds * 2)
        FROM unnest(%(ids)s::uuid[], %(moments)s::timestamptz[], %(functions)s::uuid[],
          %(statuses)s::text[], %(seconds)s::float8[])
            AS row (id, moment, function, status, seconds)
        """,
        values,
    )


async def count_all(counts: Counts, now: datetime) -> None:
    while await counts.count(now):
        pass


@pytest.mark.parametrize("window", [timedelta(minutes=10), timedelta(hours=2), timedelta(days=2)])
async def test_a_window_is_what_its_rows_say(
    counts: Counts, database: Database, window: timedelta
) -> None:
    chance = random.Random(7)
    functions = [new_uuid(), new_uuid()]
    rows = [
        (
            NOW - timedelta(seconds=1 + 3 * 86_400 * chance.random() ** 4),
            chance.choice(functions),
            chance.choice(["completed", "completed", "failed"]),
            chance.lognormvariate(-3, 2),
        )
        for _ in range(3000)
    ]
    await ended(database, rows)
    await begin(database, datetime(2026, 3, 1, tzinfo=UTC))
    await count_all(counts, NOW)
    for function in (None, functions[0]):
        stats = await counts.stats(window, NOW, function)
        assert NOW - window - timedelta(hours=1) < stats.start <= NOW - window
        inside = [row for row in rows if row[0] >= stats.start and function in (None, row[1])]
        assert stats.counts == Counter(row[2] for row in inside)
        for phase, factor in (("run", 1.0), ("queued", 0.1), ("duration", 2.0)):
            took = sorted(max(row[3] * factor, 1e-4) for row in inside)
            assert stats.latencies[phase].total() == len(took)
            for share in (0.5, 0.9, 0.99):
                exact = took[max(0, -(-int(share * 1000) * len(took) // 1000) - 1)]
                assert stats.percentile(phase, share) == pytest.approx(exact, rel=0.1)
        assert "startup" not in stats.latencies


async def test_a_window_costs_no_history(counts: Counts, database: Database) -> None:
    """What was counted is not read again: the rows may be gone."""
    function = new_uuid()
    moments = [NOW - timedelta(minutes=5 * n) for n in range(1, 600)]
    await ended(database, [(moment, function, "completed", 0.1) for moment in moments])
    await begin(database, moments[-1].replace(second=0))
    await count_all(counts, NOW)
    before = [await counts.stats(timedelta(hours=h), NOW) for h in (1, 24)]
    await database.fetch("DELETE FROM invocations")
    after = [await counts.stats(timedelta(hours=h), NOW) for h in (1, 24)]
    assert [stats.counts for stats in before] == [stats.counts for stats in after]
    assert [stats.latencies for stats in before] == [stats.latencies for stats in after]
    assert after[0].counts["completed"] >= 12


async def test_what_came_late_is_counted_after_all(counts: Counts, database: Database) -> None:
    function = new_uuid()
    await begin(database, NOW.replace(second=0))
    later = NOW + timedelta(minutes=1)
    await count_all(counts, later)
    # Committed only now, with a moment of the minute that is counted already.
    await ended(database, [(NOW, function, "completed", 0.1)])
    assert not (await counts.stats(timedelta(minutes=2), later)).counts
    await count_all(counts, later + timedelta(minutes=1))
    assert (await counts.stats(timedelta(minutes=5), later)).counts == {"completed": 1}


async def test_replicas_count_once(counts: Counts, database: Database) -> None:
    moments = [NOW - timedelta(seconds=n) for n in range(60, 1000)]
    await ended(database, [(moment, new_uuid(), "failed", 0.1) for moment in moments])
    await begin(database, moments[-1].replace(second=0))
    others = [Counts(database, kept_days=30) for _ in range(4)]
    await asyncio.gather(*(count_all(one, NOW) for one in others))
    await count_all(counts, NOW)
    assert (await counts.stats(timedelta(hours=1), NOW)).counts == {"failed": len(moments)}


async def test_old_counts_are_dropped(database: Database) -> None:
    counts = Counts(database, kept_days=5)
    await ended(database, [(NOW - timedelta(days=4), new_uuid(), "completed", 0.1)])
    await begin(database, NOW - timedelta(days=4, hours=1))
    await count_all(counts, NOW)
    rows = await database.fetch("SELECT width_s FROM invocation_stats")
    assert [row["width_s"] for row in rows] == [3600]
    await count_all(counts, NOW + timedelta(days=2))
    assert not await database.fetch("SELECT width_s FROM invocation_stats")


async def test_what_is_so_now(records: Records, counts: Counts, boot: UUID) -> None:
    first = await running(records, boot)
    await accepted(records)
    await accepted(records, not_before=datetime.now(UTC) + timedelta(hours=1))
    done = await running(records, boot, function_id=first.function_id)
    await records.conclude(done.id, 1, boot, Ending("completed", result=b"1"))
    stats = await counts.stats(timedelta(hours=1), datetime.now(UTC) + timedelta(seconds=1))
    assert (stats.running, stats.queued, stats.delayed) == (1, 1, 1)
    assert stats.oldest_s is not None
    assert stats.oldest_s >= 0
    assert stats.counts == {"completed": 1}
    of_one = await counts.stats(timedelta(hours=1), datetime.now(UTC), first.function_id)
    assert (of_one.running, of_one.queued, of_one.oldest_s) == (1, 0, None)


def test_percentiles_of_one_value() -> None:
    stats = Stats(NOW, NOW)
    stats.add([{"status": "completed", "count": 1, "latencies": {"run": {"0": 1}}}])
    assert 1e-4 <= stats.percentile("run", 0.5) <= 1.2e-4


async def test_over_grpc(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    function = await mesh.create("counted", "def handler(ok):\n    assert ok\n")
    for ok in (True, True, False):
        await mesh.invoke("counted", ok, wait_s=60)
    stats = await mesh.invocations.GetStats(GetStatsRequest())
    assert {c.status: c.count for c in stats.counts} == {"COMPLETED": 2, "FAILED": 1}
    assert [x.phase for x in stats.latencies] == list(PHASES)
    for latency in stats.latencies:
        assert latency.count == 3
        assert latency.p50.ToNanoseconds() <= latency.p99.ToNanoseconds()
    assert (stats.running, stats.queued) == (0, 0)
    assert stats.end.ToDatetime() - stats.start.ToDatetime() >= timedelta(hours=1)
    of_one = GetStatsRequest(function_id="counted", window={"seconds": 86_400})
    assert (await mesh.invocations.GetStats(of_one)).counts == stats.counts
    assert parse(FUNCTION, function.id)
    nobody = GetStatsRequest(function_id=function.id[:-4] + "0000")
    assert not (await mesh.invocations.GetStats(nobody)).counts
    await refused(
        mesh.invocations.GetStats(GetStatsRequest(function_id="nobody")), FunctionNotFound
    )
    bad = GetStatsRequest(window={"seconds": 59})
    await refused(mesh.invocations.GetStats(bad), InvalidField, "window")
