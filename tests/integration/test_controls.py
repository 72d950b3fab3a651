"""Steering what was accepted, through real services and a worker."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.dead_letter_pb2 import (
    ListDeadLettersRequest,
    ListDeadMessagesRequest,
    RedriveInvocationsRequest,
)
from faas.v1.function_pb2 import RetryPolicy
from faas.v1.function_service_pb2 import UpdateFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest, CancelInvocationsRequest
from faas.v1.lane_pb2 import PauseFunctionRequest, ResumeFunctionRequest
from faas.v1.worker_service_pb2 import ListExecutionsRequest
from services.channels import from_rpc_error
from services.errors import InvalidField, InvocationEnded, InvocationNotFound, RequestIdReused
from services.ids import new_uuid
from tests.mesh import QUEUE, Mesh, eventually

SLEEPS = """
import pathlib, time

def handler(payload, context):
    pathlib.Path(payload["file"]).write_text("started")
    time.sleep(600)
"""
FAILS = """
def handler(payload, context):
    raise ValueError(payload)
"""


@pytest.fixture
async def running(mesh: Mesh) -> Mesh:
    await mesh.start("functions", "invocations", "worker-1")
    return mesh


async def refused(call: object) -> Exception:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value, "it")


async def cancel(mesh: Mesh, record: Invocation) -> Invocation:
    return await mesh.invocations.CancelInvocation(CancelInvocationRequest(invocation_id=record.id))


async def test_a_running_invocation_is_cancelled_and_killed(running: Mesh, tmp_path: Path) -> None:
    await running.create("sleeps", SLEEPS, timeout={"seconds": 900})
    file = tmp_path / "started"
    record = await running.invoke("sleeps", {"file": str(file)})

    async def started() -> bool:
        return file.exists()

    await eventually("it runs", started)
    waiting = asyncio.create_task(running.get(record.id, wait_s=60))
    cancelled = await cancel(running, record)
    assert cancelled.status == Invocation.CANCELLED
    assert not cancelled.HasField("error")
    assert (await waiting).status == Invocation.CANCELLED
    assert (await cancel(running, record)).status == Invocation.CANCELLED
    await eventually("nothing is left in the queue", running.queue_is_empty)
    described = await running.worker("worker-1").ListExecutions(ListExecutionsRequest())
    assert list(described.executions) == []


async def test_what_waits_is_cancelled_and_never_starts(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.start("functions", "invocations")
    file = tmp_path / "started"
    await mesh.create("sleeps", SLEEPS)
    record = await mesh.invoke("sleeps", {"file": str(file)})
    assert (await cancel(mesh, record)).status == Invocation.CANCELLED
    await mesh.start("worker-1")
    await eventually("the offer was refused", mesh.queue_is_empty)
    assert not file.exists()
    assert (await mesh.get(record.id)).attempt == 0


async def test_what_has_ended_cannot_be_cancelled(running: Mesh) -> None:
    await running.create("echo")
    record = await running.invoke("echo", 1, wait_s=60)
    error = await refused(cancel(running, record))
    assert isinstance(error, InvocationEnded)
    assert error.metadata == {"status": "COMPLETED"}
    nobody = Invocation(id=f"inv-{new_uuid()}")
    assert isinstance(await refused(cancel(running, nobody)), InvocationNotFound)


async def test_a_functions_invocations_are_cancelled_together(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    await mesh.create("other")
    mine = [await mesh.invoke("echo", n) for n in range(5)]
    other = await mesh.invoke("other")
    answer = await mesh.invocations.CancelInvocations(
        CancelInvocationsRequest(function_id="echo", status=Invocation.PENDING)
    )
    assert (answer.cancelled, answer.more) == (5, False)
    statuses = {(await mesh.get(record.id)).status for record in mine}
    assert statuses == {Invocation.CANCELLED}
    assert (await mesh.get(other.id)).status == Invocation.PENDING


async def test_a_paused_function_waits_until_it_is_resumed(running: Mesh) -> None:
    function = await running.create("echo")
    await running.create("other")
    lane = await running.invocations.PauseFunction(PauseFunctionRequest(function_id="echo"))
    assert lane.function_id == function.id
    assert lane.HasField("paused_at")
    waiting = [await running.invoke("echo", n) for n in range(3)]
    assert (await running.invoke("other", 1, wait_s=60)).status == Invocation.COMPLETED
    assert {(await running.get(one.id)).status for one in waiting} == {Invocation.PENDING}
    lane = await running.invocations.ResumeFunction(ResumeFunctionRequest(function_id="echo"))
    assert not lane.HasField("paused_at")
    for record in waiting:
        assert (await running.get(record.id, wait_s=60)).status == Invocation.COMPLETED


async def test_no_more_run_at_once_than_the_function_says(running: Mesh, tmp_path: Path) -> None:
    code = """
import os, time, pathlib

def handler(payload, context):
    here = pathlib.Path(payload) / str(os.getpid())
    here.touch()
    together = len(list(here.parent.iterdir()))
    time.sleep(0.1)
    here.unlink()
    return together
"""
    await running.create("limited", code, max_concurrency=1)
    records = await asyncio.gather(
        *(running.invoke("limited", str(tmp_path), wait_s=120) for _ in range(8))
    )
    assert [record.status for record in records] == [Invocation.COMPLETED] * 8
    assert {record.result.number_value for record in records} == {1}
    await running.functions.UpdateFunction(
        UpdateFunctionRequest(function_id="limited", max_concurrency=0)
    )
    free = await running.invoke("limited", str(tmp_path), wait_s=60)
    assert free.status == Invocation.COMPLETED


async def test_a_policy_retries_and_says_so(running: Mesh) -> None:
    policy = RetryPolicy(max_attempts=3)
    policy.initial_backoff.FromMilliseconds(50)
    function = await running.create("fails", FAILS, retry_policy=policy)
    assert list(function.retry_policy.retry_on) == [
        Invocation.FUNCTION_ERROR,
        Invocation.FUNCTION_CRASHED,
        Invocation.OUT_OF_MEMORY,
        Invocation.TIMEOUT,
    ]
    assert function.version == 1
    ended = await running.invoke("fails", "no", wait_s=60)
    assert (ended.status, ended.attempt) == (Invocation.FAILED, 3)
    assert ended.error.message == "no"
    changed = await running.functions.UpdateFunction(
        UpdateFunctionRequest(function_id="fails", update_mask={"paths": ["retry_policy"]})
    )
    assert (changed.version, changed.HasField("retry_policy")) == (1, False)
    assert (await running.invoke("fails", "no", wait_s=60)).attempt == 1


async def test_a_policy_without_attempts_is_refused(running: Mesh) -> None:
    error = await refused(running.create("fails", FAILS, retry_policy=RetryPolicy()))
    assert isinstance(error, InvalidField)
    assert error.violations[0].field == "retry_policy.max_attempts"


async def test_the_same_request_is_answered_with_the_same_invocation(running: Mesh) -> None:
    await running.create("echo")
    first = await running.invoke("echo", {"n": 1}, request_id="order-1", wait_s=60)
    again = await running.invoke("echo", {"n": 1}, request_id="order-1", wait_s=60)
    assert (again.id, again.request_id) == (first.id, "order-1")
    assert again.status == Invocation.COMPLETED
    error = await refused(running.invoke("echo", {"n": 2}, request_id="order-1"))
    assert isinstance(error, RequestIdReused)
    assert error.metadata == {"invocation_id": first.id}
    assert (await running.invoke("echo", {"n": 2}, request_id="order-2")).id != first.id


async def test_what_is_not_due_waits_for_its_moment(running: Mesh) -> None:
    await running.create("echo")
    due = datetime.now(UTC) + timedelta(seconds=2)
    moment = Timestamp()
    moment.FromDatetime(due)
    record = await running.invoke("echo", 1, not_before=moment)
    assert record.status == Invocation.PENDING
    assert record.next_attempt_at.ToDatetime(tzinfo=UTC) == due
    ended = await running.get(record.id, wait_s=60)
    assert ended.started_at.ToDatetime(tzinfo=UTC) >= due
    moment.FromDatetime(due + timedelta(days=31))
    for never in (moment, Timestamp(seconds=10**12), Timestamp(seconds=-(10**12))):
        error = await refused(running.invoke("echo", 1, not_before=never))
        assert isinstance(error, InvalidField)
        assert [violation.field for violation in error.violations] == ["not_before"]


async def test_what_expired_is_listed_and_taken_up_again(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", sweep_interval_s=0.2)
    await mesh.create("echo", max_age={"seconds": 1})
    old = await mesh.invoke("echo", {"n": 1}, labels={"a": "b"})
    ended = await mesh.get(old.id, wait_s=60)
    assert (ended.status, ended.error.code) == (Invocation.DEAD_LETTERED, Invocation.EXPIRED)
    letters = await mesh.invocations.ListDeadLetters(
        ListDeadLettersRequest(function_id="echo", code=Invocation.EXPIRED)
    )
    assert [record.id for record in letters.invocations] == [old.id]
    lost = ListDeadLettersRequest(code=Invocation.WORKER_LOST)
    assert not (await mesh.invocations.ListDeadLetters(lost)).invocations
    await mesh.functions.UpdateFunction(
        UpdateFunctionRequest(function_id="echo", update_mask={"paths": ["max_age"]})
    )
    await mesh.start("worker-1")
    answer = await mesh.invocations.RedriveInvocations(
        RedriveInvocationsRequest(function_id="echo")
    )
    (redrive,) = answer.redrives
    assert redrive.source_id == old.id
    again = await mesh.get(redrive.invocation_id, wait_s=60)
    assert (again.status, again.redrive_of) == (Invocation.COMPLETED, old.id)
    assert again.payload == ended.payload
    assert dict(again.labels) == {"a": "b"}
    # Asked again, by filter there is nothing left, and by id it is the same.
    by_filter = await mesh.invocations.RedriveInvocations(RedriveInvocationsRequest())
    assert not by_filter.redrives
    by_id = await mesh.invocations.RedriveInvocations(
        RedriveInvocationsRequest(invocation_ids=[old.id, again.id, f"inv-{new_uuid()}"])
    )
    assert [one.invocation_id for one in by_id.redrives] == [again.id, "", ""]
    assert [bool(one.refusal) for one in by_id.redrives] == [False, True, True]


async def test_what_waits_or_runs_is_not_taken_up_again(running: Mesh, tmp_path: Path) -> None:
    await running.create("sleeps", SLEEPS, timeout={"seconds": 900})
    file, later = tmp_path / "started", Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    runs = await running.invoke("sleeps", {"file": str(file)})
    waits = await running.invoke("sleeps", {"file": "never"}, not_before=later)

    async def started() -> bool:
        return file.exists()

    await eventually("it runs", started)
    before = await running.get(runs.id)
    answer = await running.invocations.RedriveInvocations(
        RedriveInvocationsRequest(invocation_ids=[runs.id, waits.id])
    )
    assert [one.invocation_id for one in answer.redrives] == ["", ""]
    assert "RUNNING" in answer.redrives[0].refusal
    assert "PENDING" in answer.redrives[1].refusal
    by_filter = await running.invocations.RedriveInvocations(RedriveInvocationsRequest())
    assert not by_filter.redrives
    assert await running.get(runs.id) == before
    assert running.rows("SELECT count(*) AS n FROM invocations") == [{"n": 2}]
    await cancel(running, runs)


async def test_redriving_by_filter_goes_on_page_by_page(running: Mesh) -> None:
    await running.create("fails", FAILS)
    failed = [await running.invoke("fails", n, wait_s=60) for n in range(5)]
    token, sources = "", []
    while True:
        answer = await running.invocations.RedriveInvocations(
            RedriveInvocationsRequest(status=Invocation.FAILED, page_size=2, page_token=token)
        )
        sources += [one.source_id for one in answer.redrives]
        if not (token := answer.next_page_token):
            break
    assert sources[:5] == [record.id for record in failed]


async def test_messages_of_no_record_end_among_the_dead_ones(running: Mesh) -> None:
    function = await running.create("echo")
    unknown = {
        "invocation_id": f"inv-{new_uuid()}",
        "function_id": function.id,
        "function_version": 1,
    }
    await running.redis.lpush(QUEUE, b"\xff{", json.dumps(unknown), json.dumps({"a": 1}))

    async def buried() -> bool:
        answer = await running.invocations.ListDeadMessages(ListDeadMessagesRequest())
        return answer.total == 3

    await eventually("all three are dead", buried)
    answer = await running.invocations.ListDeadMessages(ListDeadMessagesRequest(page_size=2))
    assert len(answer.messages) == 2
    everything = await running.invocations.ListDeadMessages(ListDeadMessagesRequest())
    reasons = {message.reason for message in everything.messages}
    assert "there is no such invocation" in reasons
    assert "it is not JSON" in reasons
    assert (await running.invoke("echo", 1, wait_s=60)).status == Invocation.COMPLETED
