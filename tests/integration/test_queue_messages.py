"""The queue is no truth: whatever is in it, what runs is what the records say."""

import json

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.ids import FUNCTION, INVOCATION, new_uuid, show
from tests.mesh import QUEUE, Mesh, eventually

WAIT_S = 60
COUNT = """
import pathlib, uuid

def handler(payload, context):
    (pathlib.Path(payload) / f"{context.invocation_id}.{uuid.uuid4()}").touch()
"""


async def paused(mesh: Mesh) -> None:
    """Start all parts but workers."""
    await mesh.start("functions", "invocations")


async def dead(mesh: Mesh, count: int) -> list[dict]:
    """The dead list, once it has so many."""

    async def look() -> list[bytes]:
        found = await mesh.redis.lrange(f"{QUEUE}:dead", 0, -1)
        return found if len(found) >= count else []

    return [json.loads(item) for item in await eventually(f"{count} dead messages", look)]


async def nothing_waits(mesh: Mesh) -> None:
    async def look() -> bool:
        names = {key.decode() async for key in mesh.redis.scan_iter(match=f"{QUEUE}*")}
        return names <= {f"{QUEUE}:dead"}

    await eventually("an empty queue and empty processing lists", look)


GARBAGE = {
    "no JSON": b"\xff\xfe not json",
    "empty": b"",
    "a number": b"17",
    "a list": b'["inv-1"]',
    "nothing in it": b"{}",
    "deep": b"[" * 100_000,
    "huge": b'{"invocation_id": "' + b"x" * 300_000 + b'"}',
    "wrong types": b'{"invocation_id": 1, "function_id": null, "function_version": "1"}',
}


def offer(**changes: object) -> bytes:
    fields: dict = {
        "invocation_id": show(INVOCATION, new_uuid()),
        "function_id": show(FUNCTION, new_uuid()),
        "function_version": 1,
        "payload": "forged",
        "timeout": 30.0,
    }
    return json.dumps({**fields, **changes}).encode()


GARBAGE |= {
    "cut off": offer()[:-20],
    "enormous": offer()[:-1] + b', "more": "' + b"x" * (16 << 20),
    "no invocation": offer(invocation_id="inv-1"),
    "SQL": offer(invocation_id="'; DROP TABLE invocations; --"),
    "a path": offer(function_id="../../etc/passwd"),
    "a huge version": offer(function_version=10**12),
    "a negative version": offer(function_version=-1),
    "a true version": offer(function_version=True),
}


async def test_garbage_ends_in_the_dead_list_with_a_reason(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo")
    for message in GARBAGE.values():
        await mesh.redis.lpush(QUEUE, message)
    buried = await dead(mesh, len(GARBAGE))
    assert len(buried) == len(GARBAGE)
    assert all(item["reason"] and item["time"] for item in buried)
    texts = {item["message"] for item in buried}
    assert '["inv-1"]' in texts
    assert all(len(text) <= 4096 for text in texts)
    done = await mesh.invoke("echo", "still here", wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    await nothing_waits(mesh)


async def test_forged_messages_run_nothing(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    made = await mesh.create("count", COUNT)
    started = mesh.directory / "started"
    started.mkdir()
    real = await mesh.invoke("count", str(started), wait_s=WAIT_S)
    assert len(list(started.iterdir())) == 1
    for message in (
        offer(),
        # Of a function that exists, for an invocation that does not.
        offer(function_id=made.id, payload=str(started)),
        # Of an invocation that has ended.
        offer(invocation_id=real.id, function_id=made.id, payload=str(started)),
        # Of a version that does not exist.
        offer(function_id=made.id, function_version=77),
    ):
        await mesh.redis.lpush(QUEUE, message)
    await nothing_waits(mesh)
    assert (await mesh.get(real.id)) == real
    assert len(list(started.iterdir())) == 1
    assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 1}]
    assert (await mesh.invoke("count", str(started), wait_s=WAIT_S)).attempt == 1


async def test_what_a_message_says_is_not_what_runs(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    other = await mesh.create("other", "def handler(payload):\n    return 'the wrong one'\n")
    made = await mesh.invoke("echo", "the record's")
    message = json.loads(await mesh.redis.lindex(QUEUE, 0))
    message |= {"function_id": other.id, "payload": "forged", "timeout": 0.001}
    await mesh.redis.delete(QUEUE)
    await mesh.redis.lpush(QUEUE, json.dumps(message))
    await mesh.start("worker-1")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    assert done.result.string_value == "the record's"
    await nothing_waits(mesh)


async def test_doubled_messages_run_once(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("count", COUNT)
    started = mesh.directory / "started"
    started.mkdir()
    made = [await mesh.invoke("count", str(started)) for _ in range(6)]
    messages = await mesh.redis.lrange(QUEUE, 0, -1)
    for _ in range(4):
        for message in messages:
            # The same, and the same in other words.
            await mesh.redis.lpush(QUEUE, message, message.replace(b'":', b'": '))
    await mesh.start("worker-1", "worker-2")
    done = [await mesh.get(one.id, wait_s=WAIT_S) for one in made]
    assert [(one.status, one.attempt) for one in done] == [(Invocation.COMPLETED, 1)] * 6
    await nothing_waits(mesh)
    runs = sorted(file.name.partition(".")[0] for file in started.iterdir())
    assert runs == sorted(one.id for one in made)


async def test_a_message_that_was_cut_off_is_dead_and_its_invocation_is_offered_again(
    mesh: Mesh,
) -> None:
    await mesh.start("functions", "invocations", recovery_interval_s=0.2, offer_grace_s=1)
    await mesh.create("echo")
    made = await mesh.invoke("echo", "whole")
    message = await mesh.redis.lindex(QUEUE, 0)
    await mesh.redis.lset(QUEUE, 0, message[: len(message) // 2])
    await mesh.start("worker-1")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
    assert [item["reason"] for item in await dead(mesh, 1)] == ["it is not JSON"]
    await nothing_waits(mesh)


async def test_a_message_that_redis_lost_is_offered_again(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", offer_grace_s=0.5, recovery_interval_s=0.5)
    await mesh.create("echo")
    made = await mesh.invoke("echo", 1)
    await mesh.redis.flushdb()
    await mesh.start("worker-1")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)


async def test_a_message_whose_pop_was_not_heard_is_run(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    await mesh.start("worker-1")
    await mesh.invoke("echo", 0, wait_s=WAIT_S)
    boot = mesh.rows("SELECT worker_id, boot_id FROM workers")[0]
    processing = f"{QUEUE}:processing:worker-{boot['worker_id']}:{boot['boot_id']}"
    # As if the reply to BLMOVE had been lost with its connection.
    mesh.rows("SELECT 1")
    await mesh.redis.client_kill_filter(_type="normal", skipme=True)
    made = await mesh.invoke("echo", 1)
    message = await mesh.redis.lmove(QUEUE, processing, "RIGHT", "LEFT")
    await mesh.redis.client_kill_filter(_type="normal", skipme=True)
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    assert message is None or json.loads(message)["invocation_id"] == made.id
    await nothing_waits(mesh)


async def test_a_backlog_beyond_the_queues_limit_waits_in_postgresql(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", queue_limit=3)
    await mesh.create("echo")
    made = [await mesh.invoke("echo", number) for number in range(12)]
    assert await mesh.redis.llen(QUEUE) == 3
    await mesh.start("worker-1", concurrency=1)
    done = [await mesh.get(one.id, wait_s=WAIT_S) for one in made]
    assert [(one.status, one.attempt) for one in done] == [(Invocation.COMPLETED, 1)] * 12
    # In the order in which they were accepted.
    starts = [one.started_at.ToNanoseconds() for one in done]
    assert starts == sorted(starts)


@pytest.mark.parametrize("size", [4096, 4097])
async def test_messages_show_small_payloads_only(mesh: Mesh, size: int) -> None:
    await paused(mesh)
    made = await mesh.create("echo", timeout={"seconds": 7})
    accepted = await mesh.invoke("echo", "x" * (size - 2))
    message = json.loads(await mesh.redis.lindex(QUEUE, 0))
    shown = {"payload": "x" * (size - 2)} if size == 4096 else {"payload_omitted": True}
    assert message == {
        "invocation_id": accepted.id,
        "function_id": made.id,
        "function_version": 1,
        "timeout": 7.0,
        **shown,
    }
