"""Schedules: real replicas fire each moment exactly once."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from faas.json_values import to_value
from faas.v1.function_service_pb2 import DeleteFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest, ListInvocationsRequest
from faas.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    Schedule,
    UpdateScheduleRequest,
)
from services.errors import FunctionNotFound, InvalidField, ScheduleNotFound
from services.ids import INVOCATION, SCHEDULE, new_uuid, parse, show
from services.invocations.partitions import day_of
from services.invocations.schedules import fire_id
from tests.integration.functions import refused
from tests.mesh import Mesh, eventually

NEVER = "0 0 1 1 *"
MINUTELY = "* * * * *"


async def create(mesh: Mesh, cron: str = NEVER, **fields: object) -> Schedule:
    request = CreateScheduleRequest(**{"function_id": "echo", "cron": cron, **fields})
    return await mesh.invocations.CreateSchedule(request)


async def get(mesh: Mesh, schedule: Schedule) -> Schedule:
    return await mesh.invocations.GetSchedule(GetScheduleRequest(schedule_id=schedule.id))


async def is_due(mesh: Mesh, schedules: list[Schedule], moment: datetime) -> None:
    """As if their next moment was this one."""
    keys = [parse(SCHEDULE, schedule.id) for schedule in schedules]
    async with await psycopg.AsyncConnection.connect(mesh.database_url) as connection:
        query = "UPDATE schedules SET next_fire_at = %s WHERE id = ANY(%s)"
        await connection.execute(query, [moment, keys])


async def gone_on(mesh: Mesh, schedules: list[Schedule]) -> list[Schedule]:
    """The schedules, once none of them is due."""

    async def look() -> list[Schedule]:
        now = datetime.now(UTC)
        found = [await get(mesh, schedule) for schedule in schedules]
        on = [one for one in found if one.next_fire_at.ToDatetime(tzinfo=UTC) > now]
        return on if len(on) == len(schedules) else []

    return await eventually("the schedules have gone on", look, timeout_s=60)


async def made_by(mesh: Mesh, schedule: Schedule) -> list[Invocation]:
    listed = await mesh.invocations.ListInvocations(ListInvocationsRequest(page_size=1000))
    return [one for one in listed.invocations if one.schedule_id == schedule.id]


def minute(ago: int = 0) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=ago)


@pytest.fixture
async def replicas(mesh: Mesh) -> Mesh:
    names = ("invocations", "invocations-2", "invocations-3")
    await mesh.start("functions", *names)
    await mesh.create("echo")
    return mesh


async def test_each_moment_fires_once_whoever_fires_it(replicas: Mesh) -> None:
    mesh = replicas
    payload = to_value({"a": [1, 2.5]})
    schedules = [await create(mesh, payload=payload, labels={"by": "cron"}) for _ in range(20)]
    moment = minute()
    await is_due(mesh, schedules, moment)
    for schedule in await gone_on(mesh, schedules):
        (one,) = await made_by(mesh, schedule)
        assert schedule.last_fire_at.ToDatetime(tzinfo=UTC) == moment
        assert schedule.last_invocation_id == one.id
        assert one.labels == {"by": "cron"}
        assert (await mesh.get(one.id)).payload == payload
    # As if all had died before they could note it; and a day later, without request ids.
    for forget in ("", "DELETE FROM request_ids"):
        async with await psycopg.AsyncConnection.connect(mesh.database_url) as connection:
            await connection.execute(forget)
        await is_due(mesh, schedules, moment)
        for schedule in await gone_on(mesh, schedules):
            assert len(await made_by(mesh, schedule)) == 1


async def test_a_restart_in_the_midst_of_it_loses_and_doubles_nothing(replicas: Mesh) -> None:
    mesh = replicas
    schedules = [await create(mesh) for _ in range(40)]
    await is_due(mesh, schedules, minute())
    await asyncio.sleep(0)
    for name in ("invocations-2", "invocations-3", "invocations"):
        await mesh.kill(name)
    mesh.channels.pop("invocations")
    await mesh.start("invocations")
    for schedule in await gone_on(mesh, schedules):
        assert len(await made_by(mesh, schedule)) == 1


async def test_missed_moments(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    policies = {"FIRE_ONCE": 1, "SKIP_MISSED": 0, "FIRE_ALL": 4}
    # Daily, so that no moment of its own comes while this runs.
    hour = minute().replace(minute=0) - timedelta(hours=1)
    line = f"0 {hour.hour} * * *"
    schedules = [await create(mesh, line, misfire=policy) for policy in policies]
    first = hour - timedelta(days=3)
    await is_due(mesh, schedules, first)
    found = await gone_on(mesh, schedules)
    for schedule, (policy, count) in zip(found, policies.items(), strict=True):
        made = await made_by(mesh, schedule)
        assert len(made) == count, policy
        assert schedule.skipped == 4 - count
        if made:
            assert schedule.last_fire_at.ToDatetime(tzinfo=UTC) == hour
    # The id of what is fired late is of the time when it was to be.
    keys = [parse(INVOCATION, one.id) for one in await made_by(mesh, found[2])]
    days = {day_of(key) for key in keys if key}
    assert days == {(first + timedelta(days=n)).date() for n in range(4)}


async def test_overlaps(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")  # no worker: nothing ends
    await mesh.create("echo")
    schedules = [await create(mesh, overlap=o) for o in ("ALLOW", "SKIP", "REPLACE")]
    for ago in (1, 0):
        await is_due(mesh, schedules, minute(ago))
        found = await gone_on(mesh, schedules)
    made = [await made_by(mesh, schedule) for schedule in found]
    assert [len(one) for one in made] == [2, 1, 2]
    assert [one.skipped for one in found] == [0, 1, 0]
    newest, oldest = made[2]
    assert (newest.status, oldest.status) == (Invocation.PENDING, Invocation.CANCELLED)
    # Once it has ended, it is fired again.
    await mesh.invocations.CancelInvocation(CancelInvocationRequest(invocation_id=made[1][0].id))
    await is_due(mesh, [schedules[1]], minute())
    await gone_on(mesh, [schedules[1]])


async def test_a_function_that_is_gone_is_a_problem_that_is_told(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    schedule = await create(mesh)
    await mesh.functions.DeleteFunction(DeleteFunctionRequest(function_id="echo"))
    await is_due(mesh, [schedule], minute())
    (found,) = await gone_on(mesh, [schedule])
    assert "no function" in found.problem
    assert not found.last_invocation_id
    assert not await made_by(mesh, schedule)


async def test_while_functionservice_is_away_it_waits(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    schedule = await create(mesh, overlap="SKIP")
    await mesh.kill("functions")
    await is_due(mesh, [schedule], minute())

    async def waits() -> bool:
        return "schedules have to wait" in mesh.log("invocations")

    await eventually("it says that it waits", waits, timeout_s=60)
    mesh.channels.pop("functions")
    await mesh.start("functions")
    (found,) = await gone_on(mesh, [schedule])
    assert len(await made_by(mesh, found)) == 1


async def test_changing_and_listing(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    function = await mesh.create("echo")
    stub = mesh.invocations
    schedule = await create(mesh, "30 2 * * *", time_zone="Europe/Berlin", payload=to_value(5))
    assert (schedule.time_zone, schedule.overlap) == ("Europe/Berlin", Schedule.ALLOW)
    assert schedule.misfire == Schedule.FIRE_ONCE
    assert schedule.function_id == function.id
    assert schedule.next_fire_at.ToDatetime() > datetime.now(UTC).replace(tzinfo=None)
    others = [await create(mesh) for _ in range(3)]
    seen: list[str] = []
    token = ""
    while True:
        request = ListSchedulesRequest(page_size=2, page_token=token, function_id="echo")
        page = await stub.ListSchedules(request)
        seen += [one.id for one in page.schedules]
        token = page.next_page_token
        if not token:
            break
    assert seen == [one.id for one in reversed([schedule, *others])]

    async def update(**fields: object) -> Schedule:
        return await stub.UpdateSchedule(UpdateScheduleRequest(schedule_id=schedule.id, **fields))

    paused = await update(paused=True)
    assert not paused.HasField("next_fire_at")
    assert paused.payload == schedule.payload
    changed = await update(cron="0 12 * * *", payload=to_value(None), overlap="SKIP")
    assert not changed.HasField("next_fire_at")
    assert (changed.cron, changed.overlap) == ("0 12 * * *", Schedule.SKIP)
    assert changed.payload.WhichOneof("kind") == "null_value"
    resumed = await update(paused=False)
    assert resumed.HasField("next_fire_at")
    assert resumed.time_zone == "Europe/Berlin"
    await refused(update(cron="0 0 31 2 *"), InvalidField, "cron")
    await refused(update(time_zone="Mars"), InvalidField, "time_zone")
    assert await get(mesh, schedule) == resumed

    await stub.DeleteSchedule(DeleteScheduleRequest(schedule_id=schedule.id))
    await refused(get(mesh, schedule), ScheduleNotFound)
    delete = DeleteScheduleRequest(schedule_id=schedule.id)
    await refused(stub.DeleteSchedule(delete), ScheduleNotFound)
    nonsense = GetScheduleRequest(schedule_id="nonsense")
    await refused(stub.GetSchedule(nonsense), ScheduleNotFound)
    await refused(create(mesh, function_id="nobody"), FunctionNotFound)
    await refused(create(mesh, "never"), InvalidField, "cron")
    await refused(create(mesh, "* " * 200), InvalidField, "cron")


def test_the_id_of_a_moment_is_its_own() -> None:
    schedule, moment = new_uuid(), minute()
    key = fire_id(schedule, moment)
    assert key == fire_id(schedule, moment)
    assert key != fire_id(schedule, moment - timedelta(minutes=1))
    assert key != fire_id(new_uuid(), moment)
    assert key.version == 7
    assert parse(INVOCATION, show(INVOCATION, key)) == key
