"""Accepting an invocation: resolve, commit, then offer; never the other way round."""

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from faas.json_values import is_json, loads
from faas.v1.function_registry_service_pb2 import ResolveFunctionResponse
from faas.v1.invocation_service_pb2 import InvokeRequest
from services import ids
from services.errors import InvalidField, MeshError, RequestIdReused
from services.invocations.assignments import Version
from services.invocations.blobs import Blob, Blobs
from services.invocations.feeder import Feeder
from services.invocations.functions import Functions
from services.invocations.limits import Limits
from services.invocations.queue import Queue
from services.invocations.records import DEFAULT_MAX_AGE_S, Record, Records
from services.invocations.reports import Desk
from services.invocations.requests import moment
from services.retries import policy_to_row
from services.server import Call

IDEMPOTENCY_KEY = "idempotency-key"
"""The header that says the same as `request_id`."""
MAX_REQUEST_ID = 128
OWN_REQUEST_IDS = ("redrive:", "sched-")
"""How the request ids of redrives and schedules begin: a caller's would stand in their way."""
# What is not to start before this much later is for a scheduler elsewhere.
MAX_AHEAD = timedelta(days=30)

Accept: TypeAlias = Callable[..., Awaitable[tuple[Record, bool]]]

log = structlog.get_logger()


class Acceptance:
    """Makes records of what callers ask for."""

    def __init__(
        self,
        *,
        records: Records,
        queue: Queue,
        feeder: Feeder,
        limits: Limits,
        functions: Functions,
        desk: Desk,
        blobs: Blobs,
    ) -> None:
        """Resolve functions by `functions`, commit to `records`, offer into `queue`.

        Calls that wait are given to workers at `desk`, if one is free. Payloads too large
        for a row are in `blobs`.
        """
        self._records = records
        self._queue = queue
        self._feeder = feeder
        self._limits = limits
        self._functions = functions
        self._desk = desk
        self._blobs = blobs

    async def function_id(self, name_or_id: str, call: Call) -> UUID | None:
        """The id behind a list's filter; None without one. Raises FunctionNotFound."""
        if not name_or_id:
            return None
        # Records of a deleted function are found by its id, so that is not resolved.
        uuid = ids.parse(ids.FUNCTION, name_or_id)
        if uuid is None:
            resolved = await self._functions.resolve(name_or_id, 0, call.request_id)
            uuid = _function_uuid(resolved)
        return uuid

    async def function(self, name_or_id: str, call: Call) -> UUID:
        """The id of a function that is not deleted. Raises FunctionNotFound."""
        return _function_uuid(await self._functions.resolve(name_or_id, 0, call.request_id))

    async def accept(
        self,
        invocation_id: UUID,
        request: InvokeRequest,
        payload: bytes,
        call: Call,
        *,
        payload_type: str = "application/json",
        blob: Blob | None = None,
        replay_of: UUID | None = None,
        schedule_id: UUID | None = None,
        waits: bool = False,
    ) -> Record:
        """Commit what `request` asks for and offer it; or, if it `waits`, give it to a worker.

        A `blob` of this invocation's own stands instead of `payload`; it goes where it
        is not needed. Where its request id was used for the same before, the record is
        that one's.
        Raises FunctionNotFound, VersionNotFound, RequestIdReused, DependencyUnavailable.
        """
        resolved = await self._functions.resolve(
            request.function_id, request.function_version, call.request_id
        )
        request_id = request.request_id or call.metadata.get(IDEMPOTENCY_KEY, "")
        if len(request_id) > MAX_REQUEST_ID:
            raise InvalidField.of("request_id", f"must be at most {MAX_REQUEST_ID} characters")
        if schedule_id is None and request_id.startswith(OWN_REQUEST_IDS):
            raise InvalidField.of("request_id", "must not begin with 'redrive:' or 'sched-'")
        function_id = _function_uuid(resolved)
        await self._limits.note(function_id, resolved.max_concurrency)
        accept = partial(
            self._accepted,
            invocation_id,
            blob,
            function_id=function_id,
            function_name=resolved.function_name,
            function_version=resolved.version.version,
            timeout_ms=_timeout_ms(resolved),
            payload=payload,
            payload_type=payload_type,
            labels=dict(request.labels),
            retry_policy=_retry_policy(resolved),
            max_age_s=_max_age_s(resolved),
            not_before=_not_before(request),
            replay_of=replay_of,
            schedule_id=schedule_id,
            request_id=request_id or None,
            digest=_digest(request, payload, payload_type, blob) if request_id else None,
        )
        if waits and not resolved.max_concurrency and not request.HasField("not_before"):
            wanted = function_id, resolved.version.version
            return await self._assign(accept, invocation_id, wanted)
        record, offered = await accept()
        await self._forward(record, offered)
        return record

    async def _assign(self, accept: Accept, invocation_id: UUID, version: Version) -> Record:
        """Accept and grant at once, if a worker has a slot; or else as all others."""
        asked = time.monotonic()
        slots = await self._desk.assignments.reserve(invocation_id, version)
        held_s = time.monotonic() - asked
        if slots is None:
            record, offered = await accept(held_s=held_s)
            await self._forward(record, offered)
            return record
        grant, assigned = ids.new_uuid(), False
        try:
            record, offered = await accept(
                held_s=held_s, worker=slots.worker, boot=slots.boot, grant=grant
            )
            assigned = record.grant_id == grant and record.status == "running"
        finally:
            if not assigned:
                self._desk.assignments.release(slots, invocation_id)
        if assigned:
            self._desk.assign(record, slots)
        else:
            await self._forward(record, offered)
        return record

    async def accept_again(self, source: Record, *, latest_version: bool, call: Call) -> Record:
        """Accept what `source` was once more, linked to it; once, however often asked.

        Raises FunctionNotFound, VersionNotFound, DependencyUnavailable.
        """
        resolved = await self._functions.resolve(
            ids.show(ids.FUNCTION, source.function_id),
            0 if latest_version else source.function_version,
            call.request_id,
        )
        await self._limits.note(source.function_id, resolved.max_concurrency)
        key = ids.new_uuid()
        record, offered = await self._accepted(
            key,
            await self._copy(source, key),
            function_id=source.function_id,
            function_name=resolved.function_name,
            function_version=resolved.version.version,
            timeout_ms=_timeout_ms(resolved),
            payload=source.payload,
            payload_type=source.payload_type,
            labels=source.labels,
            retry_policy=_retry_policy(resolved),
            max_age_s=_max_age_s(resolved),
            request_id=f"redrive:{ids.show(ids.INVOCATION, source.id)}",
            digest=b"redrive",
            redrive_of=source.id,
        )
        await self._forward(record, offered)
        return record

    async def accept_replay(
        self, invocation_id: UUID, source: Record, version: int, call: Call
    ) -> Record:
        """Accept what `source` was, to see whether it ends alike; version 0 is the latest.

        Raises FunctionNotFound, VersionNotFound, RequestIdReused, DependencyUnavailable.
        """
        request = InvokeRequest(
            function_id=ids.show(ids.FUNCTION, source.function_id),
            function_version=version,
            labels=source.labels,
        )
        return await self.accept(
            invocation_id,
            request,
            source.payload,
            call,
            payload_type=source.payload_type,
            blob=await self._copy(source, invocation_id),
            replay_of=source.id,
        )

    async def _copy(self, source: Record, invocation_id: UUID) -> Blob | None:
        """A large payload of `source`, for another record: each has its own."""
        blob = Blob.of(source.payload_blob)
        return None if blob is None else await self._blobs.copy_payload(blob, invocation_id)

    async def _accepted(
        self, invocation_id: UUID, blob: Blob | None, **values: Any
    ) -> tuple[Record, bool]:
        """Commit a record; a blob that it does not come to name goes."""
        payload_blob = None if blob is None else blob.to_row()
        try:
            record, offered = await self._records.accept(
                invocation_id, payload_blob=payload_blob, offer=self._feeder.has_room, **values
            )
        except RequestIdReused:
            await self._blobs.discard(blob)
            raise
        if record.id != invocation_id:
            await self._blobs.discard(blob)
        return record, offered

    async def _forward(self, record: Record, offered: bool) -> None:
        if offered:
            await self._offer(record)
        else:
            self._feeder.wake()

    async def _offer(self, record: Record) -> None:
        try:
            self._feeder.saw_length(await self._queue.offer([record]))
        except (RedisError, OSError) as error:
            # Accepted is accepted: recovery offers it when Redis is back.
            log.warning("could not offer; it waits in PostgreSQL", error=str(error))


def _function_uuid(resolved: ResolveFunctionResponse) -> UUID:
    uuid = ids.parse(ids.FUNCTION, resolved.version.function_id)
    if uuid is None:
        raise MeshError("FunctionService answered with an id that is none.")
    return uuid


def _timeout_ms(resolved: ResolveFunctionResponse) -> int:
    return max(1, round(resolved.version.timeout.ToTimedelta().total_seconds() * 1000))


def _retry_policy(resolved: ResolveFunctionResponse) -> dict[str, Any] | None:
    return policy_to_row(resolved.retry_policy) if resolved.HasField("retry_policy") else None


def _max_age_s(resolved: ResolveFunctionResponse) -> float:
    if not resolved.HasField("max_age"):
        return DEFAULT_MAX_AGE_S
    return resolved.max_age.ToTimedelta().total_seconds()


def _not_before(request: InvokeRequest) -> datetime | None:
    due = moment(request, "not_before")
    if due is not None and due > datetime.now(UTC) + MAX_AHEAD:
        raise InvalidField.of("not_before", f"must be at most {MAX_AHEAD.days} days ahead")
    return due


def _digest(request: InvokeRequest, payload: bytes, payload_type: str, blob: Blob | None) -> bytes:
    """Of what was asked for, so that another request under the same id is told apart."""
    if blob is not None:
        payload = bytes.fromhex(blob.sha256)
    elif is_json(payload_type):
        # A message's maps come in no order that another process would give them.
        payload = json.dumps(loads(payload), sort_keys=True).encode()
    digest = hashlib.sha256(payload)
    digest.update(f"|{payload_type}|{request.function_version}".encode())
    return digest.digest()
