"""The RPCs by which people steer what was accepted: cancel, pause, take up again."""

from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.dead_letter_pb2 import (
    DeadMessage,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListDeadMessagesRequest,
    ListDeadMessagesResponse,
    Redrive,
    RedriveInvocationsRequest,
    RedriveInvocationsResponse,
)
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import (
    CancelInvocationRequest,
    CancelInvocationsRequest,
    CancelInvocationsResponse,
)
from faas.v1.lane_pb2 import Lane, PauseFunctionRequest, ResumeFunctionRequest
from services.errors import InvocationEnded, InvocationNotFound
from services.invocations import dead_letters
from services.invocations.acceptance import Acceptance
from services.invocations.cancelling import Cancelling
from services.invocations.dead_letters import Choice, DeadLetters, Redriven
from services.invocations.feeder import Feeder
from services.invocations.lanes import Lanes
from services.invocations.messages import lane_to_proto, to_proto
from services.invocations.records import Records
from services.invocations.requests import invocation_key, moment, position_key
from services.pages import make_token, page_size, read_token
from services.server import Call

_Chosen: TypeAlias = ListDeadLettersRequest | RedriveInvocationsRequest


class ControlServicer:
    """The part of faas.v1.InvocationService that steers."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        records: Records,
        cancelling: Cancelling,
        letters: DeadLetters,
        lanes: Lanes,
        feeder: Feeder,
    ) -> None:
        """Serve by these."""
        self._functions = acceptance
        self._rows = records
        self._cancelling = cancelling
        self._letters = letters
        self._lanes = lanes
        self._feeder = feeder

    async def CancelInvocation(self, request: CancelInvocationRequest, _call: Call) -> Invocation:
        """End one that has not ended."""
        key = invocation_key(request.invocation_id)
        cancelled = await self._cancelling.cancel([key])
        record = cancelled[0] if cancelled else await self._rows.find(key)
        if record is None:
            raise InvocationNotFound(f"There is no invocation {request.invocation_id}.")
        if record.status != "cancelled":
            status = record.status.upper()
            raise InvocationEnded(
                f"It has ended as {status} and stays so.", metadata={"status": status}
            )
        return to_proto(record)

    async def CancelInvocations(
        self, request: CancelInvocationsRequest, call: Call
    ) -> CancelInvocationsResponse:
        """End a function's that have not ended."""
        function = await self._functions.function_id(request.function_id, call)
        assert function is not None
        status = Invocation.Status.Name(request.status).lower()
        statuses = [status] if request.status else ["pending", "running"]
        before = moment(request, "created_before")
        cancelled, more = await self._cancelling.cancel_of(function, statuses, before)
        return CancelInvocationsResponse(cancelled=cancelled, more=more)

    async def PauseFunction(self, request: PauseFunctionRequest, call: Call) -> Lane:
        """Start nothing of a function."""
        function = await self._functions.function(request.function_id, call)
        await self._lanes.pause(function)
        return lane_to_proto(await self._lanes.of(function))

    async def ResumeFunction(self, request: ResumeFunctionRequest, call: Call) -> Lane:
        """Start its invocations again."""
        function = await self._functions.function(request.function_id, call)
        await self._lanes.resume(function)
        self._feeder.wake()
        return lane_to_proto(await self._lanes.of(function))

    async def ListDeadLetters(
        self, request: ListDeadLettersRequest, call: Call
    ) -> ListDeadLettersResponse:
        """What the platform gave up on."""
        position = read_token(request, str)
        size = page_size(request.page_size)
        page = await self._letters.page(
            await self._choice(request, "dead_lettered", call),
            limit=size + 1,
            before=position_key(position),
        )
        response = ListDeadLettersResponse()
        response.invocations.extend(to_proto(record, listed=True) for record in page[:size])
        if len(page) > size:
            response.next_page_token = make_token(request, [str(page[size - 1].id)])
        return response

    async def ListDeadMessages(
        self, request: ListDeadMessagesRequest, _call: Call
    ) -> ListDeadMessagesResponse:
        """Messages of no record."""
        messages, total = await self._letters.messages(page_size(request.page_size))
        response = ListDeadMessagesResponse(total=total)
        for message in messages:
            time = Timestamp()
            time.FromDatetime(message.time)
            response.messages.append(
                DeadMessage(reason=message.reason, time=time, message=message.message)
            )
        return response

    async def RedriveInvocations(
        self, request: RedriveInvocationsRequest, call: Call
    ) -> RedriveInvocationsResponse:
        """Take up again, by ids or by a filter."""
        latest = request.latest_version
        if request.invocation_ids:
            keys = [
                invocation_key(text, f"invocation_ids[{index}]")
                for index, text in enumerate(request.invocation_ids)
            ]
            return _redrives(
                await self._letters.redrive_ids(keys, latest_version=latest, call=call)
            )
        position = read_token(request, str)
        size = page_size(request.page_size, default=100)
        status = Invocation.Status.Name(request.status or Invocation.DEAD_LETTERED).lower()
        page = await self._letters.chosen(
            await self._choice(request, status, call),
            limit=size + 1,
            after=position_key(position),
        )
        response = _redrives(await self._letters.redrive(page[:size], latest, call))
        if len(page) > size:
            response.next_page_token = make_token(request, [str(page[size - 1].id)])
        return response

    async def _choice(self, request: _Chosen, status: str, call: Call) -> Choice:
        return Choice(
            status=status,
            function_id=await self._functions.function_id(request.function_id, call),
            code=Invocation.ErrorCode.Name(request.code) if request.code else None,
            created_after=moment(request, "created_after"),
            created_before=moment(request, "created_before"),
        )


def _redrives(redriven: list[Redriven]) -> RedriveInvocationsResponse:
    response = RedriveInvocationsResponse()
    for one in redriven:
        source, made = dead_letters.show(one)
        response.redrives.append(Redrive(source_id=source, invocation_id=made, refusal=one.refusal))
    return response
