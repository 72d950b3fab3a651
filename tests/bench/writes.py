"""What grouping writes is worth: a record's three statements, one at a time and in groups.

`python -m tests.bench.writes`: both ways in turn on one PostgreSQL (fsync on), some
clients each, medians of rounds.
"""

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

from faas.v1.worker_pb2 import Worker
from services.ids import new_uuid
from services.invocations.database import Database
from services.invocations.records import Arrival, Ending, Question, Records, Told
from services.invocations.workers import Workers
from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres

CALLS, ROUNDS = 512, 3
DONE = Ending("completed", result=b'"x"', result_type="application/json")

Life = Callable[[Records, UUID], Awaitable[None]]


def arrival(key: UUID) -> Arrival:
    return Arrival(
        id=key,
        function_id=new_uuid(),
        function_name="echo",
        function_version=1,
        timeout_ms=1000,
        payload=b'"' + b"x" * 98 + b'"',
    )


async def alone(records: Records, boot: UUID) -> None:
    """Each statement for itself, on a connection of its own."""
    key = new_uuid()
    await records._accept_all([arrival(key)])
    await records._grant_all([Question(key, boot, boot, uuid4())])
    await records._conclude_all([Told(key, 1, boot, DONE)])


async def grouped(records: Records, boot: UUID) -> None:
    """With whatever else is there."""
    key = new_uuid()
    await records._arrivals.submit(arrival(key))
    await records.grant(key, boot, boot, uuid4())
    await records.conclude(key, 1, boot, DONE)


async def lives_a_second(life: Life, records: Records, boot: UUID, clients: int) -> float:
    async def client() -> None:
        for _ in range(CALLS // clients):
            await life(records, boot)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return CALLS / (time.perf_counter() - began)


async def measure(url: str) -> None:
    database = Database(url, connections=10)
    await database.open()
    boot = new_uuid()
    await Workers(database, lost_kept_s=60).beat(boot, boot, Worker())
    records = Records(database)
    for clients in (1, 8, 32, 128):
        rates: dict[str, list[float]] = {"alone": [], "grouped": []}
        for _ in range(ROUNDS):
            for life in (alone, grouped):
                rate = await lives_a_second(life, records, boot, clients)
                rates[life.__name__].append(rate)
        one, many = (statistics.median(rates[name]) for name in ("alone", "grouped"))
        print(
            f"{clients:4} clients: one at a time {one:6.0f}/s, grouped {many:6.0f}/s,"
            f" ratio {many / one:.2f}",
            flush=True,
        )
    await database.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="faas-writes-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = Postgres(directory / "pg", directory / "pgs")
        server.prepare()
        with subprocess.Popen(
            server.command(),
            stderr=subprocess.DEVNULL,
            cwd=server.directory,
            **run_as(server.account),
        ) as process:
            try:
                while not server.is_ready():
                    time.sleep(0.05)
                server.create_database()
                migrate(server.url)
                asyncio.run(measure(server.url))
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
