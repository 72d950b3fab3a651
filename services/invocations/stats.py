"""Counts and latencies over a window, without reading the history of it.

What has ended is counted once, into minutes, and minutes into hours. A window is a
sum of hours, minutes, and of the newest rows that are not counted yet; what waits
and runs is counted from indexes that hold nothing else.

Latencies are kept as how many fell between 0.1 ms * 2^(n/4) and the next such bound,
which makes a percentile true to within 10 %.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from services.invocations.database import UNAVAILABLE, Database

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PHASES = ("queued", "assigned", "startup", "load", "run", "report", "duration")
COUNT_S = 15.0
# A row may be committed so long after the moment that stands in it.
LATE_S = 5.0
# So far back a count is made again, for those that came later still.
AGAIN = 2 * MINUTE
# Minutes that are counted in one transaction, after a time without this service.
MOST = 60 * MINUTE
MINUTES_KEPT = timedelta(days=2)
# Up to so long a window is a sum of minutes.
BY_MINUTE = timedelta(hours=2)

_LEAST_S, _STEPS = 1e-4, 4

_MEASURED = ", ".join(f"('{phase}', (metrics ->> '{phase}_s')::float8)" for phase in PHASES)

# Of the rows that ended between two moments: by start, function and status the count and
# the histograms of each phase.
_ENDED = f"""
WITH ended AS (
  SELECT date_trunc('minute', completed_at) AS starts_at, function_id, status, metrics
  FROM invocations WHERE completed_at >= %(start)s AND completed_at < %(end)s
    AND (%(function_id)s::uuid IS NULL OR function_id = %(function_id)s)),
took AS (
  SELECT starts_at, function_id, status, phase, greatest(0, floor(
    {_STEPS} * ln(greatest(seconds, {_LEAST_S}) / {_LEAST_S}) / ln(2)))::int AS bucket
  FROM ended, LATERAL (VALUES {_MEASURED}) AS measured (phase, seconds)
  WHERE seconds IS NOT NULL),
phases AS (
  SELECT starts_at, function_id, status, phase, jsonb_object_agg(bucket, number) AS buckets
  FROM (SELECT starts_at, function_id, status, phase, bucket, count(*) AS number FROM took
    GROUP BY 1, 2, 3, 4, 5) AS counted GROUP BY 1, 2, 3, 4),
latencies AS (
  SELECT starts_at, function_id, status, jsonb_object_agg(phase, buckets) AS latencies
  FROM phases GROUP BY 1, 2, 3),
counts AS (
  SELECT starts_at, function_id, status, count(*) AS count FROM ended GROUP BY 1, 2, 3)
SELECT starts_at, function_id, status, count, coalesce(latencies, '{{}}') AS latencies
FROM counts LEFT JOIN latencies USING (starts_at, function_id, status)"""

_KEEP = """
INSERT INTO invocation_stats (width_s, starts_at, function_id, status, count, latencies)
SELECT {width}, starts_at, function_id, status, count, latencies FROM ({rows}) AS rows
ON CONFLICT (width_s, starts_at, function_id, status)
  DO UPDATE SET count = excluded.count, latencies = excluded.latencies"""

_COUNT_MINUTES = _KEEP.format(width=60, rows=_ENDED)

# Minutes of whole hours, added up.
_COUNT_HOURS = _KEEP.format(
    width=3600,
    rows="""
WITH minutes AS (
  SELECT date_trunc('hour', starts_at) AS hour, function_id, status, count, latencies
  FROM invocation_stats
  WHERE width_s = 60 AND starts_at >= %(start)s AND starts_at < %(end)s),
phases AS (
  SELECT hour, function_id, status, phase, jsonb_object_agg(bucket, number) AS buckets
  FROM (SELECT hour, function_id, status, phase, bucket, sum(number::bigint) AS number
    FROM minutes, jsonb_each(latencies) AS of_phase (phase, buckets),
      jsonb_each_text(buckets) AS of_bucket (bucket, number)
    GROUP BY 1, 2, 3, 4, 5) AS summed GROUP BY 1, 2, 3, 4),
added AS (
  SELECT hour, function_id, status, jsonb_object_agg(phase, buckets) AS latencies
  FROM phases GROUP BY 1, 2, 3)
SELECT hour AS starts_at, function_id, status, sum(count)::bigint AS count,
  coalesce((array_agg(added.latencies))[1], '{}') AS latencies
FROM minutes LEFT JOIN added USING (hour, function_id, status)
GROUP BY hour, function_id, status""",
)

_COUNTED = """invocation_stats
WHERE width_s = %(width_s)s AND starts_at >= %(start)s AND starts_at < %(end)s
  AND (%(function_id)s::uuid IS NULL OR function_id = %(function_id)s)"""

_SUM = f"""
SELECT status, sum(count)::bigint AS count, '{{}}'::jsonb AS latencies
FROM {_COUNTED} GROUP BY status
UNION ALL
SELECT NULL, 0, jsonb_build_object(phase, jsonb_object_agg(bucket, number))
FROM (SELECT phase, bucket, sum(number::bigint) AS number
  FROM (SELECT latencies FROM {_COUNTED}) AS counted,
    jsonb_each(latencies) AS of_phase (phase, buckets),
    jsonb_each_text(buckets) AS of_bucket (bucket, number)
  GROUP BY 1, 2) AS summed
GROUP BY phase"""

_NOW = """
SELECT count(*) FILTER (WHERE status = 'running') AS running,
  count(*) FILTER (WHERE status = 'pending' AND due_at <= now) AS queued,
  count(*) FILTER (WHERE status = 'pending' AND due_at > now) AS delayed,
  extract(epoch FROM now - min(due_at) FILTER (WHERE status = 'pending' AND due_at <= now))::float8
    AS oldest_s
FROM (SELECT status, due_at FROM invocations WHERE status IN ('pending', 'running')
    AND (%(function_id)s::uuid IS NULL OR function_id = %(function_id)s)) AS unfinished,
  (SELECT clock_timestamp() AS now) AS clock
GROUP BY now"""

log = structlog.get_logger()


@dataclass
class Stats:
    """What happened in a window, and what is so now."""

    start: datetime
    end: datetime
    counts: Counter[str] = field(default_factory=Counter)
    """By status, of those that ended within it."""
    latencies: dict[str, Counter[int]] = field(default_factory=dict)
    """By phase, how many fell into each bucket."""
    running: int = 0
    queued: int = 0
    delayed: int = 0
    """Pending, and not due yet."""
    oldest_s: float | None = None
    """How long the first of those that are due has been."""

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Count rows of `invocation_stats` in."""
        for row in rows:
            if row["count"]:
                self.counts[row["status"]] += row["count"]
            for phase, buckets in row["latencies"].items():
                known = self.latencies.setdefault(phase, Counter())
                known.update({int(bucket): number for bucket, number in buckets.items()})

    def percentile(self, phase: str, share: float) -> float:
        """Seconds that so great a share of them took at most, to within 10 %."""
        buckets = self.latencies[phase]
        wanted = share * buckets.total()
        for bucket in sorted(buckets):
            wanted -= buckets[bucket]
            if wanted <= 0:
                break
        # The middle of the bucket, in the measure that it is one in.
        return float(_LEAST_S * 2 ** ((bucket + 0.5) / _STEPS))


class Counts:
    """Keeps the counts, and adds them up."""

    def __init__(self, database: Database, *, kept_days: float) -> None:
        """Count in `database`; hours are kept for `kept_days`."""
        self._database = database
        self._kept = timedelta(days=kept_days)

    async def run(self) -> None:
        """Count what has ended, until cancelled. Any number of replicas may."""
        while True:
            try:
                behind = await self.count(datetime.now(UTC))
            except UNAVAILABLE as error:
                log.warning("counting has to wait", error=str(error))
                behind = False
            if not behind:
                await asyncio.sleep(COUNT_S)

    async def count(self, now: datetime) -> bool:
        """Count up to a moment a little before `now`; whether there is more to count."""
        until = _floor(now - timedelta(seconds=LATE_S), MINUTE)
        async with self._database.session() as connection, connection.transaction():
            # Who has the row counts; the others find it done.
            cursor = await connection.execute(
                "SELECT counted_until FROM invocation_stats_progress FOR UPDATE SKIP LOCKED"
            )
            row = await cursor.fetchone()
            if row is None or row[0] >= until:
                return False
            start, end = row[0] - AGAIN, min(until, row[0] + MOST)
            values = {"start": start, "end": end, "function_id": None}
            await connection.execute(_COUNT_MINUTES.encode(), values)
            hours = {"start": _floor(start, HOUR), "end": _floor(end, HOUR)}
            await connection.execute(_COUNT_HOURS.encode(), hours)
            await connection.execute(
                """DELETE FROM invocation_stats WHERE width_s = 60 AND starts_at < %(minutes)s
                  OR width_s = 3600 AND starts_at < %(hours)s""",
                {"minutes": end - MINUTES_KEPT, "hours": end - self._kept},
            )
            await connection.execute(
                "UPDATE invocation_stats_progress SET counted_until = %(end)s", {"end": end}
            )
            return bool(end < until)

    async def stats(
        self, window: timedelta, now: datetime, function_id: UUID | None = None
    ) -> Stats:
        """What ended within `window` before `now`, which begins with a whole minute or hour."""
        width = MINUTE if window <= BY_MINUTE else HOUR
        stats = Stats(_floor(now - window, width), now)
        rows = await self._database.fetch("SELECT counted_until FROM invocation_stats_progress")
        counted = max(stats.start, rows[0]["counted_until"])
        hours = max(stats.start, _floor(counted, HOUR)) if width is HOUR else stats.start
        of = {"function_id": function_id}
        for width_s, start, end in ((3600, stats.start, hours), (60, hours, counted)):
            if start < end:
                values = {**of, "width_s": width_s, "start": start, "end": end}
                stats.add(await self._database.fetch(_SUM, values))
        if counted < now:
            values = {**of, "start": counted, "end": now}
            stats.add(await self._database.fetch(_ENDED, values, prepare=False))
        for row in await self._database.fetch(_NOW, of, prepare=False):
            stats.running, stats.queued = row["running"], row["queued"]
            stats.delayed, stats.oldest_s = row["delayed"], row["oldest_s"]
        return stats


def _floor(moment: datetime, width: timedelta) -> datetime:
    """The whole minute or hour before a moment, UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return moment - (moment - epoch) % width
