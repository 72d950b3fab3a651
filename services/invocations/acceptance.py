"""Accepting an invocation: resolve, commit, then offer; never the other way round."""

from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from faas.v1.function_registry_service_pb2 import ResolveFunctionRequest, ResolveFunctionResponse
from faas.v1.invocation_service_pb2 import InvokeRequest
from services import ids
from services.channels import mesh_errors
from services.errors import MeshError
from services.invocations.feeder import Feeder
from services.invocations.queue import Queue
from services.invocations.records import Record, Records
from services.server import Call

if TYPE_CHECKING:
    from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceAsyncStub

# FunctionService is next door: longer means that it is away.
RESOLVE_S = 5.0

log = structlog.get_logger()


class Acceptance:
    """Makes records of what callers ask for."""

    def __init__(
        self,
        records: Records,
        queue: Queue,
        feeder: Feeder,
        functions: "FunctionRegistryServiceAsyncStub",
    ) -> None:
        """Resolve functions by `functions`, commit to `records`, offer into `queue`."""
        self._records = records
        self._queue = queue
        self._feeder = feeder
        self._functions = functions

    async def function_id(self, name_or_id: str, call: Call) -> UUID | None:
        """The id behind a list's filter; None without one. Raises FunctionNotFound."""
        if not name_or_id:
            return None
        # Records of a deleted function are found by its id, so that is not resolved.
        uuid = ids.parse(ids.FUNCTION, name_or_id)
        if uuid is None:
            resolved = await self._resolve(name_or_id, 0, call)
            uuid = _function_uuid(resolved)
        return uuid

    async def accept(
        self, invocation_id: UUID, request: InvokeRequest, payload: bytes, call: Call
    ) -> Record:
        """Commit what `request` asks for and offer it.

        Raises FunctionNotFound, VersionNotFound, DependencyUnavailable.
        """
        resolved = await self._resolve(request.function_id, request.function_version, call)
        record, offered = await self._records.accept(
            invocation_id,
            function_id=_function_uuid(resolved),
            function_name=resolved.function_name,
            function_version=resolved.version.version,
            timeout_ms=max(1, round(resolved.version.timeout.ToTimedelta().total_seconds() * 1000)),
            payload=payload,
            labels=dict(request.labels),
            offer=self._feeder.has_room,
        )
        if offered:
            await self._offer(record)
        else:
            self._feeder.wake()
        return record

    async def _offer(self, record: Record) -> None:
        try:
            self._feeder.saw_length(await self._queue.offer([record]))
        except (RedisError, OSError) as error:
            # Accepted is accepted: recovery offers it when Redis is back.
            log.warning("could not offer; it waits in PostgreSQL", error=str(error))

    async def _resolve(self, name_or_id: str, version: int, call: Call) -> ResolveFunctionResponse:
        request = ResolveFunctionRequest(function_id=name_or_id, version=version)
        metadata = (("x-request-id", call.request_id),)
        async with mesh_errors("FunctionService"):
            return await self._functions.ResolveFunction(
                request, timeout=RESOLVE_S, metadata=metadata
            )


def _function_uuid(resolved: ResolveFunctionResponse) -> UUID:
    uuid = ids.parse(ids.FUNCTION, resolved.version.function_id)
    if uuid is None:
        raise MeshError("FunctionService answered with an id that is none.")
    return uuid
