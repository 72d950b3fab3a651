"""The RPCs of schedules."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from faas.json_values import NotJson, from_json, to_json
from faas.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    ListSchedulesResponse,
    UpdateScheduleRequest,
)
from faas.v1.schedule_pb2 import Schedule as ScheduleMessage
from services import ids
from services.errors import InvalidPayload, ScheduleNotFound, TooLarge
from services.invocations.acceptance import Acceptance
from services.invocations.schedules import Schedule, Schedules
from services.pages import make_token, page_size, read_token
from services.server import Call

_OVERLAPS = {"allow": 1, "skip": 2, "replace": 3}
_MISFIRES = {"fire_once": 1, "skip": 2, "fire_all": 3}


class ScheduleServicer:
    """The part of faas.v1.InvocationService that looks after schedules."""

    def __init__(
        self, *, acceptance: Acceptance, schedules: Schedules, max_payload_bytes: int
    ) -> None:
        """Serve by these; refuse payloads larger than `max_payload_bytes`."""
        self._functions = acceptance
        self._schedules = schedules
        self._max_payload_bytes = max_payload_bytes

    async def CreateSchedule(self, request: CreateScheduleRequest, call: Call) -> ScheduleMessage:
        """Make a schedule."""
        values = {
            **self._values(request),
            "function_id": await self._functions.function(request.function_id, call),
            "labels": dict(request.labels),
        }
        return schedule_to_proto(await self._schedules.create(values, datetime.now(UTC)))

    async def GetSchedule(self, request: GetScheduleRequest, _call: Call) -> ScheduleMessage:
        """One schedule."""
        return schedule_to_proto(await self._schedules.get(_key(request.schedule_id)))

    async def ListSchedules(
        self, request: ListSchedulesRequest, call: Call
    ) -> ListSchedulesResponse:
        """Schedules, newest first."""
        position = read_token(request, UUID)
        size = page_size(request.page_size)
        page = await self._schedules.page(
            limit=size + 1,
            before=position[0] if position else None,
            function_id=await self._functions.function_id(request.function_id, call),
        )
        response = ListSchedulesResponse(schedules=map(schedule_to_proto, page[:size]))
        if len(page) > size:
            response.next_page_token = make_token(request, [str(page[size - 1].id)])
        return response

    async def UpdateSchedule(self, request: UpdateScheduleRequest, _call: Call) -> ScheduleMessage:
        """Change what is present."""
        key = _key(request.schedule_id)
        fields = {field.name for field, _ in request.ListFields()}
        known = self._values(request)
        values = {name: value for name, value in known.items() if name in fields}
        return schedule_to_proto(await self._schedules.update(key, values, datetime.now(UTC)))

    async def DeleteSchedule(self, request: DeleteScheduleRequest, _call: Call) -> Empty:
        """Remove one; what it has invoked goes on."""
        await self._schedules.delete(_key(request.schedule_id))
        return Empty()

    def _values(self, request: CreateScheduleRequest | UpdateScheduleRequest) -> dict[str, Any]:
        try:
            payload = to_json(request.payload)
        except NotJson as error:
            raise InvalidPayload.of("payload", str(error)) from error
        if len(payload) > self._max_payload_bytes:
            limit = str(self._max_payload_bytes)
            raise TooLarge(f"payload: at most {limit} bytes.", metadata={"limit_bytes": limit})
        return {
            "function_version": request.function_version,
            "cron": request.cron,
            "time_zone": request.time_zone,
            "payload": payload,
            "overlap": _stored(_OVERLAPS, request.overlap),
            "misfire": _stored(_MISFIRES, request.misfire),
            "paused": request.paused,
        }


def schedule_to_proto(schedule: Schedule) -> ScheduleMessage:
    """A schedule as the API shows it."""
    shown = ScheduleMessage(
        id=ids.show(ids.SCHEDULE, schedule.id),
        function_id=ids.show(ids.FUNCTION, schedule.function_id),
        function_version=schedule.function_version,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        payload=from_json(schedule.payload),
        labels=schedule.labels,
        overlap=_OVERLAPS[schedule.overlap],  # type: ignore[arg-type]
        misfire=_MISFIRES[schedule.misfire],  # type: ignore[arg-type]
        paused=schedule.paused,
        skipped=schedule.skipped,
        problem=schedule.problem,
    )
    if schedule.last_invocation_id is not None:
        shown.last_invocation_id = ids.show(ids.INVOCATION, schedule.last_invocation_id)
    for name in ("created_at", "updated_at", "next_fire_at", "last_fire_at"):
        if (moment := getattr(schedule, name)) is not None:
            getattr(shown, name).FromDatetime(moment)
    return shown


def _stored(names: dict[str, int], value: int) -> str:
    """The name of an enum's value; unspecified is the first."""
    return next(name for name, number in names.items() if number == (value or 1))


def _key(text: str) -> UUID:
    key = ids.parse(ids.SCHEDULE, text)
    if key is None:
        raise ScheduleNotFound(f"There is no schedule {ascii(text)[1:-1]}.")
    return key
