"""Watching: real PostgreSQL and Valkey, then real processes behind a real Envoy."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import grpc
import httpx
import pytest
from redis.asyncio import Redis

from faas.v1.invocation_pb2 import Invocation, InvocationEvent, LogLine
from faas.v1.invocation_service_pb2 import WatchInvocationRequest
from services.background import running
from services.ids import new_uuid
from services.invocations.changes import Changes
from services.invocations.database import Database
from services.invocations.logs import Chunk, Logs, Place
from services.invocations.records import Ending, Record, Records
from services.invocations.watches import REMEMBERED, Event, Seen, Watches
from tests.integration.gateway import running_envoy
from tests.integration.test_records import a_boot, accepted
from tests.mesh import Mesh, eventually

HELD = """
import pathlib, time

def handler(payload):
    print("begun")
    while not pathlib.Path(payload).exists(): time.sleep(0.02)
    print("released")
"""
SLOW = """
import time
def handler(payload):
    for number in range(payload):
        print("line", number)
        time.sleep(0.3)
    return {"printed": payload}
"""


class Counting(Database):
    """Counts the statements that it runs."""

    def __init__(self, url: str) -> None:
        super().__init__(url, connections=8)
        self.statements = 0

    async def fetch(self, *arguments, **keywords):
        self.statements += 1
        return await super().fetch(*arguments, **keywords)


class Replica:
    """What one InvocationService has of this."""

    def __init__(self, database_url: str, redis_url: str, keepalive_s: float = 60) -> None:
        self.database = Counting(database_url)
        self.redis = Redis.from_url(redis_url)
        self.changes = Changes(self.redis)
        self.records = Records(self.database, lost_backoff_s=0, on_change=self.changes.tell)
        self.logs = Logs(self.database, max_bytes=4 * REMEMBERED, on_change=self.changes.tell)
        self.watches = Watches(self.records, self.logs, keepalive_s=keepalive_s)
        self.changes.listen(self.watches.changed)

    async def start(self, record: Record, boot: UUID) -> Record:
        granted = await self.records.grant(record.id, new_uuid(), boot, new_uuid())
        assert granted is not None
        return granted

    async def print(self, record: Record, boot: UUID, sequence: int, *texts: str) -> None:
        lines = [LogLine(stream=LogLine.STDOUT, text=text) for text in texts]
        await self.logs.append([Chunk(record.id, record.attempt, sequence, lines)], boot)

    async def end(self, record: Record, boot: UUID) -> None:
        ending = Ending("completed", result=b"1", result_type="application/json")
        assert await self.records.conclude(record.id, record.attempt, boot, ending)


@pytest.fixture
async def replicas(database_url: str, redis_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    pair = Replica(database_url, redis_url), Replica(database_url, redis_url)
    async with AsyncExitStack() as stack:
        for replica in pair:
            await replica.database.open()
            stack.push_async_callback(replica.database.close)
            stack.push_async_callback(replica.redis.aclose)
            loops = replica.changes.run(), replica.watches.run()
            await stack.enter_async_context(running(*loops))
        yield pair


def told(event: Event) -> object:
    """What an event says, in short."""
    if event.record is not None:
        return (event.record.status, event.record.attempt)
    return [line.text for line in event.lines]


async def collect(watches: Watches, key: UUID, seen: Seen | None = None) -> list[Event]:
    async with asyncio.timeout(60):
        return [event async for event in watches.follow(key, seen or Seen())]


async def test_a_watcher_at_another_replica_sees_all_in_order(replicas) -> None:
    one, other = replicas
    boot = await a_boot(one.database)
    record = await accepted(one.records)
    events: list[Event] = []

    async def watch() -> None:
        async for event in other.watches.follow(record.id, Seen()):
            events.append(event)

    async def seen(count: int) -> None:
        async def look() -> bool:
            return len(events) >= count

        await eventually(f"{count} events", look)

    watching = asyncio.create_task(watch())
    await seen(1)
    first = await one.start(record, boot)
    await seen(2)
    await one.print(first, boot, 0, "a", "b")
    await seen(3)
    await one.records.lose(boot, [record.id], {"code": "WORKER_LOST", "message": "lost"})
    await seen(4)
    second = await one.start(record, boot)
    await seen(5)
    await one.print(second, boot, 0, "c")
    await one.end(second, boot)
    await asyncio.wait_for(watching, 30)
    assert [told(event) for event in events] == [
        ("pending", 0),
        ("running", 1),
        ["a", "b"],
        ("pending", 1),
        ("running", 2),
        ["c"],
        ("completed", 2),
    ]
    assert [event.last for event in events] == [False] * 6 + [True]
    assert events[-1].record is not None
    assert events[-1].record.result == b"1"

    for number, event in enumerate(events[:-1]):
        rest = await collect(one.watches, record.id, event.seen)
        lines = [event for event in events[number + 1 :] if event.lines]
        assert [told(event) for event in rest] == [*map(told, lines), ("completed", 2)]
    (again,) = await collect(one.watches, record.id, events[-1].seen)
    assert (told(again), again.last) == (("completed", 2), True)


async def test_many_watchers_cost_what_one_does(replicas) -> None:
    replica, _ = replicas
    boot = await a_boot(replica.database)
    started = await replica.start(await accepted(replica.records), boot)
    following = asyncio.Semaphore(0)
    statements = {}
    for watchers in (1, 200):
        before = replica.database.statements

        async def watch() -> None:
            async for event in replica.watches.follow(started.id, Seen()):
                if event.record is not None and event.record.status == "running":
                    following.release()
                if [line.text for line in event.lines][-1:] == ["stop"]:
                    return

        tasks = [asyncio.create_task(watch()) for _ in range(watchers)]
        for _ in tasks:
            await following.acquire()
        for sequence in range(10):
            await replica.print(started, boot, 20 * watchers + sequence, f"{sequence}")
        await replica.print(started, boot, 20 * watchers + 11, "stop")
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        statements[watchers] = replica.database.statements - before
    # 11 appends, and at most two reads for each of them and each second; for one
    # as for all. A statement for every watcher would be thousands.
    assert statements[200] < 200, statements


async def test_who_lags_behind_what_is_remembered_reads_it_all(replicas) -> None:
    replica, _ = replicas
    boot = await a_boot(replica.database)
    started = await replica.start(await accepted(replica.records), boot)
    text = "x" * 32 * 1024
    slow = replica.watches.follow(started.id, Seen())
    events = [await anext(slow)]
    for sequence in range(80):  # 2.5 MiB, ten times what is remembered
        await replica.print(started, boot, sequence, f"{sequence:03}{text}")
    late = asyncio.create_task(collect(replica.watches, started.id))
    await replica.end(started, boot)
    async with asyncio.timeout(60):
        events += [event async for event in slow]
    for seen in (events, await late):
        numbers = [line.text[:3] for event in seen for line in event.lines]
        assert numbers == sorted(set(numbers))
        # The service keeps at most twice of what it is told to keep.
        assert len(numbers) == 2 * 4 * REMEMBERED // len(f"000{text}\n")
        assert seen[-1].last


async def test_nothing_is_left_of_those_who_leave(replicas) -> None:
    replica, _ = replicas
    record = await accepted(replica.records)
    following = replica.watches.follow(record.id, Seen())
    assert told(await anext(following)) == ("pending", 0)
    await following.aclose()
    assert not replica.watches._topics


async def test_a_silent_watch_says_that_it_is_alive(database_url: str, redis_url: str) -> None:
    replica = Replica(database_url, redis_url, keepalive_s=0.05)
    await replica.database.open()
    record = await accepted(replica.records)
    async with running(replica.watches.run()):
        following = replica.watches.follow(record.id, Seen(0, "pending", Place()))
        async with asyncio.timeout(30):
            event = await anext(following)
        await following.aclose()
    assert (event.record, event.lines, event.last) == (None, (), False)
    assert event.seen == Seen(0, "pending", Place())
    await replica.redis.aclose()
    await replica.database.close()


# --- Real processes -------------------------------------------------------------------------


async def watched(mesh: Mesh, invocation_id: str, cursor: str = "") -> list[InvocationEvent]:
    request = WatchInvocationRequest(invocation_id=invocation_id, cursor=cursor)
    return [event async for event in mesh.invocations.WatchInvocation(request, timeout=60)]


def lines_of(events: list[InvocationEvent]) -> list[str]:
    return [line.text for event in events for line in event.lines]


async def test_watching_a_function_run(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", watch_keepalive_s=1)
    await mesh.create("slow", SLOW)
    made = await mesh.invoke("slow", 4)
    events = await watched(mesh, made.id)
    texts = [f"line {number}" for number in range(4)]
    assert lines_of(events) == texts
    assert len([event for event in events if event.lines]) > 1, "not as it was written"
    states = [event.invocation.status for event in events if event.HasField("invocation")]
    assert states[-2:] == [Invocation.RUNNING, Invocation.COMPLETED]
    last = events[-1]
    assert last.last
    assert last.invocation.result.struct_value.fields["printed"].number_value == 4
    assert not last.invocation.HasField("payload")
    # From every cursor on exactly the rest comes.
    for number, event in enumerate(events):
        rest = await watched(mesh, made.id, event.cursor)
        assert lines_of(rest) == lines_of(events[number + 1 :])
        assert rest[-1].last

    other = await mesh.invoke("slow", 0, wait_s=30)
    for key, cursor in ((made.id, "made-up"), (made.id, "e30"), (other.id, last.cursor)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watched(mesh, key, cursor)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "cursor" in (refused.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await watched(mesh, f"inv-{new_uuid()}")
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_watch_goes_on_over_a_restart(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("slow", SLOW)
    made = await mesh.invoke("slow", 12)
    events: list[InvocationEvent] = []
    stream = mesh.invocations.WatchInvocation(WatchInvocationRequest(invocation_id=made.id))
    async for event in stream:
        events.append(event)
        if event.lines:
            break
    mesh.signal("invocations", signal.SIGTERM)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        events.extend([event async for event in stream])
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    mesh.processes.pop("invocations").wait(30)
    await mesh.start("invocations")
    events += await watched(mesh, made.id, events[-1].cursor)
    assert lines_of(events) == [f"line {number}" for number in range(12)]
    assert events[-1].last


def data_of(text: str) -> list[dict]:
    """The events in a stream of server-sent events."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_server_sent_events(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", watch_keepalive_s=0.2)
    await mesh.create("slow", SLOW)
    await mesh.create("held", HELD)
    release = mesh.directory / "release"
    made = await mesh.invoke("held", str(release))
    addresses = {
        "functions_address": mesh.address("functions"),
        "invocations_address": mesh.address("invocations"),
    }
    async with running_envoy(mesh.directory, **addresses) as envoy, envoy.client() as http:
        pieces: list[str] = []
        async with http.stream("GET", f"/invocations/{made.id}:watch") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            async for piece in answer.aiter_text():
                pieces.append(piece)
                # It goes on once a keep-alive has said that nothing happens.
                events = data_of("".join(pieces).rpartition("\n")[0])
                if any("invocation" not in e and not e["lines"] for e in events):
                    release.touch()
        events = data_of("".join(pieces))
        assert [line["text"] for event in events for line in event["lines"]] == [
            "begun",
            "released",
        ]
        assert [event["last"] for event in events] == [False] * (len(events) - 1) + [True]
        assert events[-1]["invocation"]["status"] == "COMPLETED"

        rest = await http.get(f"/invocations/{made.id}:watch?cursor={events[-1]['cursor']}")
        assert [event["last"] for event in data_of(rest.text)] == [True]
        bad = await http.get(f"/invocations/{made.id}:watch?cursor=nonsense")
        assert (bad.status_code, bad.json()["details"][0]["reason"]) == (400, "INVALID_PAGE_TOKEN")
        gone = await http.get(f"/invocations/inv-{new_uuid()}:watch")
        assert gone.status_code == 404

        # Those who leave in the midst of it break nothing.
        long = await mesh.invoke("slow", 20)
        for _ in range(5):
            with pytest.raises(httpx.ReadTimeout):
                async with http.stream("GET", f"/invocations/{long.id}:watch", timeout=0.1) as left:
                    await left.aread()
        assert (await mesh.get(long.id, wait_s=60)).status == Invocation.COMPLETED
    assert "Traceback" not in mesh.log("invocations")
