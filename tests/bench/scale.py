"""What history costs: each operation beside 10,000 records and beside many.

`python -m tests.bench.scale --rows 1000000`. It runs a PostgreSQL of its own with two
databases, generates a month of history in both, and measures the service's own
statements in turns, because machines are noisy. `--write` puts the table and the
plans into docs/scale.md.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from services.ids import FUNCTION, new_uuid, show
from services.invocations.accounts import Accounts
from services.invocations.database import Database
from services.invocations.filters import where
from services.invocations.history import History
from services.invocations.offers import OfferBook
from services.invocations.partitions import Partitions
from services.invocations.records import Records
from services.invocations.stats import Counts
from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres
from tests.conftest import wait_until

FEW = 10_000
DAYS = 29
PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"

# A month of history: 100 functions, 3 % failures, every tenth record with labels, some
# started twice, ids as the service makes them.
GENERATE = """
INSERT INTO invocations (id, function_id, function_name, function_version, status, payload,
  payload_type, timeout_ms, labels, attempt, attempt_limit, due_at, result, result_type, error,
  metrics, created_at, started_at, completed_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
    || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
  ('00000000-0000-7000-8000-' || lpad(to_hex(function), 12, '0'))::uuid,
  'function-' || function, 1, CASE WHEN failed THEN 'failed' ELSE 'completed' END,
  convert_to('{"text": "' || repeat('x', 80) || '"}', 'UTF8'), 'application/json', 30000,
  CASE WHEN n %% 10 = 0 THEN jsonb_build_object('tenant', 't' || n %% 9973) ELSE '{}' END,
  CASE WHEN n %% 211 = 0 THEN 2 ELSE 1 END, 2, at,
  CASE WHEN NOT failed THEN '{"ok": true}'::bytea END,
  CASE WHEN NOT failed THEN 'application/json' END,
  CASE WHEN failed THEN jsonb_build_object('code', CASE WHEN n %% 997 = 0 THEN 'OUT_OF_MEMORY'
    ELSE 'FUNCTION_ERROR' END, 'message', 'x') END,
  jsonb_build_object('queued_s', 0.002, 'startup_s', 0.05, 'run_s', 0.01, 'duration_s', 0.062),
  at, at + interval '2 ms', at + interval '62 ms'
FROM (SELECT n, md5(n::text) AS hash, (n * 7919 %% 100)::int AS function,
    n %% 33 = 0 OR n %% 997 = 0 AS failed,
    %(start)s::timestamptz + (%(end)s::timestamptz - %(start)s) * (n::float8 / %(rows)s) AS at
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n) AS made"""
CHUNK = 100_000


class Side:
    """One database and the parts of the service that work on it."""

    def __init__(self, url: str, rows: int) -> None:
        """Of `rows` records in the database at `url`."""
        self.url, self.rows = url, rows
        self.database = Database(url, connections=4)
        self.records = Records(self.database)
        self.history = History(self.database)
        self.book = OfferBook(self.database)
        self.counts = Counts(self.database, kept_days=30)
        self.chance = random.Random(1)

    async def generate(self) -> None:
        """Fill it, from 29 days ago until a minute ago."""
        now = datetime.now(UTC)
        start, end = now - timedelta(days=DAYS), now - timedelta(minutes=1)
        partitions = Partitions(self.database, retention_days=30)
        for week in range(0, DAYS + 1, 7):
            await partitions.ensure((start + timedelta(days=week)).date())
        await partitions.ensure(now.date())
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute("SET synchronous_commit = off")
            values = {"start": start, "end": end, "rows": self.rows}
            for first in range(0, self.rows, CHUNK):
                last = min(first + CHUNK, self.rows) - 1
                await connection.execute(GENERATE, {**values, "first": first, "last": last})
            await connection.execute("VACUUM ANALYZE invocations")
            await connection.execute(
                "UPDATE invocation_stats_progress SET counted_until = %s",
                [start.replace(minute=0, second=0, microsecond=0)],
            )
            await connection.execute("CHECKPOINT")
            found = await (
                await connection.execute("SELECT id FROM invocations TABLESAMPLE SYSTEM (1)")
            ).fetchall()
            self.known = [row[0] for row in found] or [new_uuid()]
        began = time.monotonic()
        while await self.counts.count(now):
            pass
        self.counting_s = time.monotonic() - began

    async def accept(self) -> UUID:
        """One acceptance, committed."""
        record, _ = await self.records.accept(
            new_uuid(),
            function_id=new_uuid(),
            function_name="bench",
            function_version=1,
            timeout_ms=1000,
            payload=b'{"text": "' + b"x" * 80 + b'"}',
            labels={},
            offer=True,
        )
        return record.id

    async def cancel(self) -> None:
        """One acceptance and its cancellation: what is accepted does not pile up."""
        await self.records.cancel([await self.accept()])

    async def list(self, text: str) -> None:
        """The first page of a list."""
        await self.history.page(limit=51, where=where(text))

    def operations(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What is measured, by the names in the table."""
        function = show(FUNCTION, UUID("00000000-0000-7000-8000-000000000007"))
        lists = {
            "list, newest": "",
            "list, one function": f"function_id = {function}",
            "list, `status = FAILED`": "status = FAILED",
            "list, `labels.tenant = t70`": "labels.tenant = t70",
            "list, `error.code = OUT_OF_MEMORY`": "error.code = OUT_OF_MEMORY",
            "list, `attempt > 1`": "attempt > 1",
            "list, `function_name = …` and FAILED": "function_name = function-7 status = FAILED",
        }
        return {
            "accept and cancel": self.cancel,
            "get": lambda: self.records.find(self.chance.choice(self.known)),
            **{name: (lambda text=text: self.list(text)) for name, text in lists.items()},
            "explain": self.explain,
            "recovery's look at what is offered": lambda: self.book.offered(5),
            "feeder's look at what is due": lambda: self.book.take_due(1),
            "stats, 1 hour": lambda: self.counts.stats(timedelta(hours=1), datetime.now(UTC)),
            "stats, 28 days": lambda: self.counts.stats(timedelta(days=28), datetime.now(UTC)),
        }

    async def explain(self) -> None:
        """The account of one record."""
        record = await self.records.find(self.chance.choice(self.known))
        if record is not None:
            attempts = await self.records.attempts.of(record.id)
            await Accounts(self.database).of(record, attempts)

    async def plan(self, text: str) -> str:
        """How PostgreSQL reads a page, as it did it."""
        condition = where(text)
        query = f"""EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY ON)
          SELECT id FROM invocations WHERE {condition.sql} ORDER BY id DESC LIMIT 51"""
        rows = await self.database.fetch(query, condition.values, prepare=False)
        lines = [row["QUERY PLAN"] for row in rows]
        # Thirty partitions are read alike: two of them show it.
        shown = [line for line in lines if " on invocations_" not in line]
        partitions = [line for line in lines if " on invocations_" in line]
        return "\n".join([*shown[:4], *partitions[:2], "  …", *lines[-4:]])


async def measure(sides: list[Side], rounds: int, calls: int) -> dict[str, list[list[float]]]:
    """Of each operation, by side, the milliseconds of every call; sides take turns."""
    took: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for index, side in enumerate(sides):
            for name, operation in side.operations().items():
                samples = took.setdefault(name, [[] for _ in sides])[index]
                for _ in range(calls):
                    began = time.perf_counter()
                    await operation()
                    samples.append((time.perf_counter() - began) * 1000)
    return took


def table(sides: list[Side], took: dict[str, list[list[float]]]) -> str:
    """The figures in Markdown."""
    few, many = (f"{side.rows:,}" for side in sides)
    lines = [
        f"| operation | {few} records: p50 / p99 ms | {many} records: p50 / p99 ms"
        " | times as long (p50) |",
        "|---|---|---|---|",
    ]
    for name, samples in took.items():
        here, there = (statistics.quantiles(of_side, n=100) for of_side in samples)
        shown = " | ".join(f"{each[49]:.2f} / {each[98]:.2f}" for each in (here, there))
        lines.append(f"| {name} | {shown} | {there[49] / here[49]:.2f} |")
    return "\n".join(lines)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of our own, with the settings of `faas up`, gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="faas-scale-", dir="/var/tmp"))
    directory.chmod(0o755)
    server = Postgres(directory / "pg", directory / "socket")
    server.prepare()
    process = subprocess.Popen(
        server.command(), stderr=subprocess.DEVNULL, cwd=server.directory, **run_as(server.account)
    )
    try:
        wait_until(server.is_ready, "PostgreSQL is ready")
        server.create_database()
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def side(server: Postgres, name: str, rows: int) -> AsyncIterator[Side]:
    """A database with a history of so many records."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = server.url.replace("/faas?", f"/{name}?")
    migrate(url)
    made = Side(url, rows)
    await made.database.open()
    began = time.monotonic()
    await made.generate()
    print(f"{rows:,} records in {time.monotonic() - began:.0f} s", flush=True)
    yield made
    await made.database.close()


async def main(options: argparse.Namespace) -> None:
    """Measure, print, and write where asked."""
    with postgres() as server:
        async with side(server, "few", FEW) as few, side(server, "many", options.rows) as many:
            took = await measure([few, many], options.rounds, options.calls)
            figures = table([few, many], took)
            plans = [
                f"`{text or 'no filter'}`\n\n```\n{await many.plan(text)}\n```"
                for text in ("status = FAILED", "labels.tenant = t70", "attempt > 1")
            ]
            note = (
                f"{datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds of {options.calls} calls"
                f" in turns, one caller; {options.rows:,} records were counted into statistics"
                f" in {many.counting_s:.0f} s."
            )
    text = "\n\n".join([figures, note, "### Plans of the larger one", *plans])
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="records of the larger one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=50, help="of each operation in a round")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    asyncio.run(main(parser.parse_args()))
