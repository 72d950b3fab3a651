"""The RPCs of FunctionService and FunctionRegistryService."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from faas.v1.function_pb2 import Function, FunctionVersion, Upload
from faas.v1.function_registry_service_pb2 import (
    CodeChunk,
    FetchCodeRequest,
    GetVersionRequest,
    ListConcurrencyLimitsRequest,
    ListConcurrencyLimitsResponse,
    ListMinWarmRequest,
    ListMinWarmResponse,
    ResolveFunctionRequest,
    ResolveFunctionResponse,
    WatchChangesRequest,
    WatchChangesResponse,
)
from faas.v1.function_service_pb2 import (
    CreateFunctionRequest,
    DeleteFunctionRequest,
    DownloadCodeRequest,
    GetFunctionRequest,
    GetFunctionVersionRequest,
    ListFunctionsRequest,
    ListFunctionsResponse,
    ListFunctionVersionsRequest,
    ListFunctionVersionsResponse,
    UpdateFunctionRequest,
    UploadCodeRequest,
)
from services import ids
from services.errors import InvalidPageToken, OutcomeUnknown
from services.functions import keys
from services.functions.builds import Builds, Source
from services.functions.catalog import Catalog, Found, Order, Position
from services.functions.changes import Changes, Watcher
from services.functions.database import UNAVAILABLE
from services.functions.edits import Edits
from services.functions.filters import parse_filter, parse_order
from services.functions.messages import (
    CONTENT_TYPES,
    format_of,
    function_to_proto,
    max_age,
    retry_policy,
    upload_to_proto,
    version_to_proto,
)
from services.functions.requests import values_to_change, values_to_create
from services.functions.sources import TEXT, Code, one, received
from services.functions.tables import FunctionRow, VersionRow
from services.functions.uploads import Uploads
from services.pages import make_token, page_size, read_token
from services.server import Call
from services.storage import CodeStorage


class FunctionServicer:
    """faas.v1.FunctionService."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        builds: Builds,
        edits: Edits,
        uploads: Uploads,
        storage: CodeStorage,
    ) -> None:
        """Serve by these."""
        self._catalog = catalog
        self._builds = builds
        self._edits = edits
        self._uploads = uploads
        self._storage = storage

    async def CreateFunction(self, request: CreateFunctionRequest, _call: Call) -> Function:
        """Make a function."""
        values = values_to_create(request)
        async with self._code(request, request.WhichOneof("source") or "code") as code:
            found = await self._edits.create(values, code, validate=request.validate)
        return await self._shown_after(found)

    async def GetFunction(self, request: GetFunctionRequest, _call: Call) -> Function:
        """One function."""
        return await self._shown(await self._catalog.find(request.function_id))

    async def ListFunctions(
        self, request: ListFunctionsRequest, _call: Call
    ) -> ListFunctionsResponse:
        """Functions, newest first unless asked otherwise."""
        order = Order(*parse_order(request.order_by))
        condition = parse_filter(request.filter)
        size = page_size(request.page_size)
        page = await self._catalog.list_functions(
            limit=size + 1, order=order, after=_position(request, order), condition=condition
        )
        response = ListFunctionsResponse()
        states = await self._builds.states(version for _, version in page[:size])
        response.functions.extend(
            function_to_proto(function, version, states[Source.of(version)])
            for function, version in page[:size]
        )
        if len(page) > size:
            last, _ = page[size - 1]
            response.next_page_token = make_token(request, _place(last, order))
        return response

    async def UpdateFunction(self, request: UpdateFunctionRequest, _call: Call) -> Function:
        """Change a function."""
        values, source = values_to_change(request)
        source_code: AbstractAsyncContextManager[Code | None] = (
            self._code(request, source) if source else nullcontext()
        )
        async with source_code as code:
            found = await self._edits.update(
                request.function_id, values, code, request.etag, validate=request.validate
            )
        return await self._shown_after(found)

    async def DeleteFunction(self, request: DeleteFunctionRequest, _call: Call) -> Empty:
        """Delete a function."""
        await self._edits.delete(request.function_id, request.etag)
        return Empty()

    async def GetFunctionVersion(
        self, request: GetFunctionVersionRequest, _call: Call
    ) -> FunctionVersion:
        """One version."""
        _, version = await self._catalog.find_version(request.function_id, request.version)
        states = await self._builds.states([version])
        return version_to_proto(version, states[Source.of(version)])

    async def ListFunctionVersions(
        self, request: ListFunctionVersionsRequest, _call: Call
    ) -> ListFunctionVersionsResponse:
        """Versions of one function, newest first."""
        position = read_token(request, int)
        size = page_size(request.page_size)
        page = await self._catalog.list_versions(
            request.function_id, limit=size + 1, before=position[0] if position else None
        )
        response = ListFunctionVersionsResponse()
        states = await self._builds.states(page[:size])
        response.versions.extend(
            version_to_proto(version, states[Source.of(version)]) for version in page[:size]
        )
        if len(page) > size:
            response.next_page_token = make_token(request, [page[size - 1].version])
        return response

    async def UploadCode(self, requests: AsyncIterable[UploadCodeRequest], _call: Call) -> Upload:
        """Keep an archive until a function names it."""
        chunks = (request.chunk.data async for request in requests)
        return upload_to_proto(await self._uploads.receive(chunks, "chunk"))

    async def DownloadCode(
        self, request: DownloadCodeRequest, _call: Call
    ) -> AsyncIterator[HttpBody]:
        """The code as it was handed in."""
        _, version = await self._catalog.find_version(request.function_id, request.version)
        content_type = CONTENT_TYPES[format_of(version.code_format)]
        async for chunk in _stored(self._storage, version):
            yield HttpBody(content_type=content_type, data=chunk)
            content_type = ""  # the first message says it

    async def _shown(self, found: Found) -> Function:
        function, version = found
        states = await self._builds.states([version])
        return function_to_proto(function, version, states[Source.of(version)])

    async def _shown_after(self, found: Found) -> Function:
        """What a change has led to. Raises OutcomeUnknown: not that nothing was changed."""
        try:
            return await self._shown(found)
        except UNAVAILABLE as error:
            raise OutcomeUnknown("It is done, but how it is now cannot be read: look.") from error

    def _code(
        self, request: CreateFunctionRequest | UpdateFunctionRequest, source: str
    ) -> AbstractAsyncContextManager[Code]:
        if source == "upload_id":
            return self._uploads.open(request.upload_id, source)
        if source == "archive":
            return received(one(request.archive), source)
        return received(one(request.code.encode()), source, code_format=TEXT)


class RegistryServicer:
    """faas.v1.FunctionRegistryService."""

    def __init__(self, *, catalog: Catalog, storage: CodeStorage, changes: Changes) -> None:
        """Serve by these."""
        self._catalog = catalog
        self._storage = storage
        self._changes = changes

    async def ResolveFunction(
        self, request: ResolveFunctionRequest, _call: Call
    ) -> ResolveFunctionResponse:
        """What an invocation that is being accepted would run."""
        found = await self._catalog.find_version(request.function_id, request.version)
        function, version = found
        return ResolveFunctionResponse(
            version=version_to_proto(version),
            function_name=function.name,
            retry_policy=retry_policy(function),
            max_age=max_age(function),
            max_concurrency=function.max_concurrency or 0,
        )

    async def GetVersion(self, request: GetVersionRequest, _call: Call) -> FunctionVersion:
        """One version, of a deleted function too."""
        version = await self._catalog.find_kept_version(request.function_id, request.version)
        return version_to_proto(version)

    async def FetchCode(self, request: FetchCodeRequest, _call: Call) -> AsyncIterator[CodeChunk]:
        """The code of one version, of a deleted function too."""
        version = await self._catalog.find_kept_version(request.function_id, request.version)
        async for chunk in _stored(self._storage, version):
            yield CodeChunk(data=chunk)

    async def WatchChanges(
        self, requests: AsyncIterable[WatchChangesRequest], _call: Call
    ) -> AsyncIterator[WatchChangesResponse]:
        """Changes of functions, until the watcher goes."""
        async with self._changes.watching() as watcher:
            reading = asyncio.create_task(self._acknowledged(requests, watcher), name="acks")
            try:
                yield WatchChangesResponse()
                while (change := await watcher.changes.get()) is not None:
                    number, function_id = change
                    shown = ids.show(ids.FUNCTION, function_id)
                    yield WatchChangesResponse(number=number, function_id=shown)
            finally:
                reading.cancel()

    async def _acknowledged(
        self, requests: AsyncIterable[WatchChangesRequest], watcher: Watcher
    ) -> None:
        async for request in requests:
            await self._changes.acknowledge(watcher, request.acknowledged)

    async def ListConcurrencyLimits(
        self, _request: ListConcurrencyLimitsRequest, _call: Call
    ) -> ListConcurrencyLimitsResponse:
        """All limits that there are."""
        limits = await self._catalog.limits()
        return ListConcurrencyLimitsResponse(
            max_concurrency={ids.show(ids.FUNCTION, key): most for key, most in limits.items()}
        )

    async def ListMinWarm(self, _request: ListMinWarmRequest, _call: Call) -> ListMinWarmResponse:
        """All that there are."""
        response = ListMinWarmResponse()
        for function, version in await self._catalog.kept_warm():
            response.functions.add(
                function_id=ids.show(ids.FUNCTION, function.id),
                version=version.version,
                runtime=version.runtime,
                min_warm=function.min_warm,
            )
        return response


def _stored(storage: CodeStorage, version: VersionRow) -> AsyncIterator[bytes]:
    return storage.get(keys.of_function(version.function_id, version.code_sha256))


def _place(function: FunctionRow, order: Order) -> list[Any]:
    value = getattr(function, order.field)
    shown = value.isoformat() if isinstance(value, datetime) else value
    return [shown, ids.show(ids.FUNCTION, function.id)]


def _position(request: ListFunctionsRequest, order: Order) -> Position | None:
    """Where the page before ended. Raises InvalidPageToken, also for forged ones."""
    place = read_token(request, str, str)
    if place is None:
        return None
    shown, shown_id = place
    uuid = ids.parse(ids.FUNCTION, shown_id)
    value = shown if order.field == "name" else _moment(shown)
    if uuid is None or value is None:
        raise InvalidPageToken.of("page_token", "was not made by this list call")
    return Position(value, uuid)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
