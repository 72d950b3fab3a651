"""Runs InvocationService: `python -m services.invocations`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from faas.v1 import execution_service_pb2, invocation_service_pb2
from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceStub
from services.background import running
from services.channels import connect
from services.invocations.acceptance import Acceptance
from services.invocations.accounts import Accounts
from services.invocations.assignments import Assignments
from services.invocations.blobs import Blobs
from services.invocations.cancelling import Cancelling
from services.invocations.changes import Changes
from services.invocations.controls import ControlServicer
from services.invocations.database import UNAVAILABLE, Database
from services.invocations.dead_letters import DeadLetters
from services.invocations.durability import Durability
from services.invocations.feeder import Feeder, Recovery
from services.invocations.functions import Functions
from services.invocations.history import History
from services.invocations.insights import InsightServicer
from services.invocations.lanes import Lanes
from services.invocations.leases import Leases
from services.invocations.limits import Limits
from services.invocations.logs import Logs
from services.invocations.offers import OfferBook
from services.invocations.orphans import Orphans
from services.invocations.partitions import Days, Partitions
from services.invocations.queue import Queue
from services.invocations.records import Records
from services.invocations.replays import Replays
from services.invocations.reports import Desk
from services.invocations.schedules import Clock, Schedules
from services.invocations.scheduling import ScheduleServicer
from services.invocations.servicers import ExecutionServicer, InvocationServicer
from services.invocations.settings import Settings
from services.invocations.standby import Standby
from services.invocations.stats import Counts
from services.invocations.sweeper import Sweeper
from services.invocations.waiters import Waiters
from services.invocations.watches import Watches
from services.invocations.workers import Workers
from services.postgresql import is_unsure
from services.server import Server
from services.storage import CodeStorage, StorageUnavailable, open_storage
from services.telemetry import configure_logging

# A command that Redis does not answer in this time has failed.
REDIS_TIMEOUT_S = 3.0


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Server]:
    """The service, wired; its background tasks run while this is entered."""
    database = Database(settings.database_url, connections=settings.database_connections)
    redis = Redis.from_url(settings.redis_url, socket_connect_timeout=REDIS_TIMEOUT_S)
    channel = connect(settings.functions_address)
    changes = Changes(redis)
    days = Days()
    records = Records(
        database, lost_backoff_s=settings.lost_backoff_s, on_change=changes.tell, days=days
    )
    book, queue = OfferBook(database), Queue(redis)
    waiters = Waiters(records)
    leases = Leases(
        database, records, waiters, lease_s=settings.lease_s, overtime_s=settings.overtime_s
    )
    lanes = Lanes(database)
    feeder = Feeder(book, queue, lanes, queue_limit=settings.queue_limit)
    registry = FunctionRegistryServiceStub(channel)
    functions, limits = Functions(registry), Limits(lanes, feeder, registry)
    sweeper = Sweeper(database, records, lanes, waiters, interval_s=settings.sweep_interval_s)
    recovery = Recovery(
        book,
        queue,
        leases,
        feeder,
        interval_s=settings.recovery_interval_s,
        grace_s=settings.offer_grace_s,
    )
    logs = Logs(database, max_bytes=settings.max_log_bytes, on_change=changes.tell)
    watches = Watches(records, logs, keepalive_s=settings.watch_keepalive_s)
    changes.listen(watches.changed)
    changes.listen_to_others(waiters.changed)
    workers = Workers(database, lost_kept_s=settings.lost_workers_kept_s)
    assignments = Assignments(lambda: feeder.is_busy)
    standby = Standby(registry, workers)
    storage, blobs = _large_content(settings)
    desk = Desk(
        records=records,
        book=book,
        logs=logs,
        workers=workers,
        leases=leases,
        waiters=waiters,
        feeder=feeder,
        assignments=assignments,
        standby=standby,
        blobs=blobs,
    )
    acceptance = Acceptance(
        records=records,
        queue=queue,
        feeder=feeder,
        limits=limits,
        functions=functions,
        desk=desk,
        blobs=blobs,
    )
    cancelling = Cancelling(database, records, waiters, feeder, desk)
    controls = ControlServicer(
        acceptance=acceptance,
        records=records,
        cancelling=cancelling,
        letters=DeadLetters(database, records, acceptance, redis),
        lanes=lanes,
        feeder=feeder,
    )
    schedules = Schedules(database)
    clock = Clock(schedules, acceptance, records, cancelling)
    counts = Counts(database, kept_days=settings.retention_days)
    insights = InsightServicer(
        acceptance=acceptance,
        records=records,
        counts=counts,
        replays=Replays(acceptance, records, waiters),
        accounts=Accounts(database),
        blobs=blobs,
    )
    invocations = InvocationServicer(
        acceptance=acceptance,
        records=records,
        history=History(database),
        logs=logs,
        workers=workers,
        waiters=waiters,
        watches=watches,
        desk=desk,
        blobs=blobs,
    )
    server = Server(
        settings.listen_address,
        drain_timeout_s=settings.drain_timeout_s,
        unavailable=(*UNAVAILABLE, RedisError, StorageUnavailable),
        unsure=is_unsure,
        on_drain=[waiters.close, watches.close, desk.close],
    )
    server.add(
        invocation_service_pb2.DESCRIPTOR.services_by_name["InvocationService"],
        invocations,
        controls,
        insights,
        ScheduleServicer(
            acceptance=acceptance,
            schedules=schedules,
            max_payload_bytes=blobs.inline_bytes,
        ),
    )
    server.add(
        execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"],
        ExecutionServicer(desk, blobs),
    )
    partitions = Partitions(
        database, retention_days=settings.retention_days, on_drop=blobs.drop_day, days=days
    )
    await database.open()
    # Before anything is accepted, if that can be: a row that finds none goes elsewhere.
    with suppress(*UNAVAILABLE):
        await partitions.ensure(datetime.now(UTC).date())
    loops: tuple[Any, ...] = (
        Durability(database),
        partitions,
        functions,
        waiters,
        changes,
        watches,
        leases,
        feeder,
        recovery,
        limits,
        standby,
        sweeper,
        counts,
        clock,
        *_orphans(settings, database, storage),
    )
    try:
        async with running(*(loop.run() for loop in loops)):
            yield server
    finally:
        await channel.close()
        await redis.aclose()
        await database.close()


def _large_content(settings: Settings) -> tuple[CodeStorage | None, Blobs]:
    """Where large content is kept, which may be nowhere, and what keeps it there."""
    storage = None
    if settings.storage_url:
        storage = open_storage(
            settings.storage_url,
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            key_id=settings.s3_access_key_id,
            secret=settings.s3_secret_access_key,
        )
    blobs = Blobs(
        storage,
        max_payload_bytes=settings.max_payload_bytes,
        max_result_bytes=settings.max_result_bytes,
        transfers=settings.max_transfers,
    )
    return storage, blobs


def _orphans(
    settings: Settings, database: Database, storage: CodeStorage | None
) -> Iterator[Orphans]:
    """What sweeps the storage, if there is one."""
    if storage is not None:
        yield Orphans(
            database,
            storage,
            interval_s=settings.orphan_sweep_interval_s,
            age_s=settings.orphan_age_s,
        )


async def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, part="invocations")
    async with service(settings) as server:
        await server.run()


if __name__ == "__main__":
    uvloop.run(main())
