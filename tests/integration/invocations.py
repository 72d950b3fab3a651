"""Records on a database of a test's own: fixtures and steps of their lives."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from faas.v1.worker_pb2 import Worker
from services.ids import new_uuid
from services.invocations.database import Database
from services.invocations.partitions import Days, Partitions
from services.invocations.records import Record, Records
from services.invocations.workers import Workers

LOST = {"code": "WORKER_LOST", "message": "lost"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, connections=8)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def records(database: Database) -> Records:
    days = Days()
    await Partitions(database, retention_days=30, days=days).ensure(datetime.now(UTC).date())
    return Records(database, lost_backoff_s=0, days=days)


@pytest.fixture
async def boot(database: Database) -> UUID:
    return await a_boot(database)


async def a_boot(database: Database, worker: UUID | None = None) -> UUID:
    boot = new_uuid()
    await Workers(database, lost_kept_s=60).beat(worker or new_uuid(), boot, Worker())
    return boot


def arrival(**changes: object) -> dict:
    """What `Records.accept` is given."""
    return {
        "function_id": new_uuid(),
        "function_name": "echo",
        "function_version": 1,
        "timeout_ms": 1000,
        "payload": b"{}",
        "labels": {},
        "offer": True,
        **changes,
    }


async def accepted(records: Records, **changes: object) -> Record:
    record, _ = await records.accept(new_uuid(), **arrival(**changes))
    return record


async def running(records: Records, boot: UUID, **changes: object) -> Record:
    """A record that `boot` was granted."""
    record = await accepted(records, **changes)
    granted = await records.grant(record.id, new_uuid(), boot, uuid4())
    assert granted is not None
    return granted
