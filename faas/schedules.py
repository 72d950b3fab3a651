"""Schedules: functions that are invoked at the times that a cron line names."""

from collections.abc import Mapping
from typing import Any

from faas.blocking import Face, blocking
from faas.errors import InvalidSettings
from faas.json_values import to_python
from faas.payloads import value_of
from faas.transport import Transport
from faas.v1 import schedule_pb2
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.schedule_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    UpdateScheduleRequest,
)

Record = schedule_pb2.Schedule

_ABSENT: Any = object()
"""Where None is a value: the payload null."""


class ScheduleView:
    """What is known of a schedule, as of when it was last read."""

    @property
    def record(self) -> Record:
        """All of it; all but its id is empty before it is read."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """`sched-…`."""
        return self.record.id

    @property
    def payload(self) -> Any:
        """What it gives the function."""
        return to_python(self.record.payload)

    def __repr__(self) -> str:
        """Its id and its cron line."""
        return f"<{type(self).__name__} {self.id} {self.record.cron!r}>"


class AsyncSchedule(ScheduleView):
    """One schedule."""

    def __init__(self, transport: Transport, record: Record) -> None:
        """The schedule of `record`, of which the id is enough."""
        self._transport = transport
        self._record = record

    @property
    def record(self) -> Record:
        """The schedule as it was last read."""
        return self._record

    async def refresh(self) -> Record:
        """Read it anew."""
        stub = InvocationServiceStub(self._transport.channel)
        request = GetScheduleRequest(schedule_id=self.id)
        self._record = await self._transport.read(stub.GetSchedule, request)
        return self._record

    async def update(
        self,
        *,
        cron: str | None = None,
        time_zone: str | None = None,
        payload: Any = _ABSENT,
        version: int | None = None,
        overlap: str | None = None,
        misfire: str | None = None,
        paused: bool | None = None,
    ) -> Record:
        """Change what is named, and nothing else."""
        request = UpdateScheduleRequest(
            schedule_id=self.id,
            function_version=version,
            cron=cron,
            time_zone=time_zone,
            overlap=None if overlap is None else overlap_of(overlap),
            misfire=None if misfire is None else misfire_of(misfire),
            paused=paused,
        )
        if payload is not _ABSENT:
            request.payload.CopyFrom(value_of(payload))
        stub = InvocationServiceStub(self._transport.channel)
        self._record = await self._transport.call(stub.UpdateSchedule, request)
        return self._record

    async def pause(self) -> Record:
        """Fire nothing until it is resumed; what is missed meanwhile never fires."""
        return await self.update(paused=True)

    async def resume(self) -> Record:
        """Fire again."""
        return await self.update(paused=False)

    async def delete(self) -> None:
        """Remove it. What it has invoked goes on."""
        stub = InvocationServiceStub(self._transport.channel)
        request = DeleteScheduleRequest(schedule_id=self.id)
        await self._transport.call(stub.DeleteSchedule, request)


class Schedule(ScheduleView, Face[AsyncSchedule]):
    """One schedule."""

    @property
    def record(self) -> Record:
        """The schedule as it was last read."""
        return self._core.record

    refresh = blocking(AsyncSchedule.refresh)
    update = blocking(AsyncSchedule.update)
    pause = blocking(AsyncSchedule.pause)
    resume = blocking(AsyncSchedule.resume)
    delete = blocking(AsyncSchedule.delete)


async def create(
    transport: Transport,
    function_id: str,
    cron: str,
    payload: Any,
    *,
    time_zone: str = "",
    version: int = 0,
    labels: Mapping[str, str] | None = None,
    overlap: str = "",
    misfire: str = "",
    paused: bool = False,
) -> AsyncSchedule:
    """Have a function invoked at the times that `cron` names."""
    request = CreateScheduleRequest(
        function_id=function_id,
        function_version=version,
        cron=cron,
        time_zone=time_zone,
        payload=value_of(payload),
        labels=labels,
        overlap=overlap_of(overlap),
        misfire=misfire_of(misfire),
        paused=paused,
    )
    stub = InvocationServiceStub(transport.channel)
    return AsyncSchedule(transport, await transport.call(stub.CreateSchedule, request))


def overlap_of(name: str) -> Record.Overlap.ValueType:
    """What to do where the one before has not ended, by its name; empty: the default."""
    return Record.Overlap.Value(_known(name, Record.Overlap, "overlap"))


def misfire_of(name: str) -> Record.Misfire.ValueType:
    """What to do with moments that were missed, by its name; empty: the default."""
    return Record.Misfire.Value(_known(name, Record.Misfire, "misfire"))


def _known(name: str, names: Any, what: str) -> str:
    unspecified, *known = names.keys()
    if not name:
        return str(unspecified)
    found = name.upper().replace("-", "_")
    if found not in known:
        raise InvalidSettings(f"There is no {what} {name!r}. There are {', '.join(known)}.")
    return found
