"""The RPCs of FunctionBuildService."""

import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from uuid import UUID

import structlog
from google.protobuf.duration_pb2 import Duration

from faas.v1.function_build_service_pb2 import (
    AwaitBuildRequest,
    AwaitBuildResponse,
    FetchBinaryRequest,
    FetchSourceRequest,
    FinishBuildRequest,
    FinishBuildResponse,
    RenewBuildRequest,
    RenewBuildResponse,
    TakeBuildRequest,
    TakeBuildResponse,
)
from faas.v1.function_pb2 import FunctionVersion
from faas.v1.function_registry_service_pb2 import CodeChunk
from services import ids
from services.errors import InvalidField, TooLarge, VersionNotFound
from services.functions import keys
from services.functions.build_waits import BuildWaits
from services.functions.builds import Builds, Source, binary_key, state_of
from services.functions.catalog import Catalog
from services.functions.messages import format_of
from services.functions.sources import TEXT, received
from services.functions.tables import BuildRow
from services.server import Call
from services.storage import CodeStorage, ObjectMissing

log = structlog.get_logger()


class BuildServicer:
    """faas.v1.FunctionBuildService."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        builds: Builds,
        waits: BuildWaits,
        storage: CodeStorage,
        max_binary_bytes: int,
    ) -> None:
        """Serve by these; keep no larger binaries."""
        self._catalog = catalog
        self._builds = builds
        self._waits = waits
        self._storage = storage
        self._max_binary_bytes = max_binary_bytes

    async def TakeBuild(self, request: TakeBuildRequest, _call: Call) -> TakeBuildResponse:
        """Something to build, when there is some."""
        wait_s = request.wait.ToTimedelta().total_seconds()
        build = await self._waits.take(request.runtime, request.target, request.worker_id, wait_s)
        if build is None:
            return TakeBuildResponse()
        log.info("granted a build", worker_id=build.worker_id, **_names(build))
        lease = Duration()
        lease.FromMilliseconds(round(self._builds.lease_s * 1000))
        version = FunctionVersion(
            function_id=ids.show(ids.FUNCTION, build.function_id),
            runtime=build.runtime,
            handler=build.handler,
            code_format=format_of(build.code_format),
            code_sha256=build.code_sha256,
        )
        return TakeBuildResponse(grant=str(build.grant_id), version=version, lease=lease)

    async def FetchSource(
        self, request: FetchSourceRequest, _call: Call
    ) -> AsyncIterator[CodeChunk]:
        """The code of a build."""
        build = await self._granted(request.grant)
        key = keys.of_function(build.function_id, build.code_sha256)
        async for chunk in self._storage.get(key):
            yield CodeChunk(data=chunk)

    async def RenewBuild(self, request: RenewBuildRequest, _call: Call) -> RenewBuildResponse:
        """It is still being built."""
        return RenewBuildResponse(held=await self._builds.renew(UUID(request.grant)))

    async def FinishBuild(
        self, requests: AsyncIterable[FinishBuildRequest], _call: Call
    ) -> FinishBuildResponse:
        """What became of a build."""
        rest = aiter(requests)
        first = await anext(rest, FinishBuildRequest())
        if not first.grant:
            raise InvalidField.of("grant", "is needed in the first message")
        recorded = await self._finished(first, rest)
        self._waits.tell()
        return FinishBuildResponse(recorded=recorded)

    async def AwaitBuild(self, request: AwaitBuildRequest, _call: Call) -> AwaitBuildResponse:
        """How a build is."""
        version = await self._catalog.find_kept_version(request.function_id, request.version)
        wait_s = request.wait.ToTimedelta().total_seconds()
        build = await self._waits.ended(Source.of(version), request.target, wait_s)
        state = state_of(build)
        return AwaitBuildResponse(
            state=state.state, reason=state.reason, sha256=build.binary_sha256 or ""
        )

    async def FetchBinary(
        self, request: FetchBinaryRequest, _call: Call
    ) -> AsyncIterator[CodeChunk]:
        """What was built."""
        version = await self._catalog.find_kept_version(request.function_id, request.version)
        build = await self._builds.find(Source.of(version), request.target)
        if build.status != "ready":
            raise VersionNotFound("This version is not built yet.")
        digest = hashlib.sha256()
        with contextlib.suppress(ObjectMissing):
            async for chunk in self._storage.get(binary_key(build)):
                digest.update(chunk)
                yield CodeChunk(data=chunk)
        if digest.hexdigest() != build.binary_sha256:
            log.error("a binary is lost in the storage; it is built again", **_names(build))
            await self._builds.lost_binary(build)
            self._waits.tell()
            raise VersionNotFound("What was built of this version is lost.")

    async def _granted(self, grant: str) -> BuildRow:
        build = await self._builds.granted(UUID(grant))
        if build is None:
            raise VersionNotFound("This build is not yours any more.")
        return build

    async def _finished(
        self, first: FinishBuildRequest, rest: AsyncIterator[FinishBuildRequest]
    ) -> bool:
        grant = UUID(first.grant)
        match first.WhichOneof("outcome"):
            case "error":
                return await self._builds.failed(grant, first.error)
            case "given_back":
                log.warning("a build was given back", grant=str(grant), reason=first.given_back)
                return await self._builds.given_back(grant, first.given_back)
            case "binary":
                return await self._stored(first, rest)
        raise InvalidField.of("outcome", "is needed in the first message")

    async def _stored(
        self, first: FinishBuildRequest, rest: AsyncIterator[FinishBuildRequest]
    ) -> bool:
        build = await self._builds.granted(UUID(first.grant))
        if build is None:
            return False
        try:
            async with received(
                _data(first, rest), "data", code_format=TEXT, most_bytes=self._max_binary_bytes
            ) as binary:
                if binary.sha256 != first.binary.sha256:
                    raise InvalidField.of("binary.sha256", "is not that of the data that came")
                return await self._builds.built(build, binary.sha256, binary.file)
        except TooLarge:
            return await self._builds.failed(
                UUID(first.grant),
                f"The binary is larger than {self._max_binary_bytes} bytes, which is the most"
                " that this deployment keeps (FAAS_FUNCTIONS_MAX_BINARY_BYTES).",
            )


async def _data(
    first: FinishBuildRequest, rest: AsyncIterator[FinishBuildRequest]
) -> AsyncIterator[bytes]:
    yield first.data
    async for request in rest:
        yield request.data


def _names(build: BuildRow) -> dict[str, str]:
    return {
        "function_id": ids.show(ids.FUNCTION, build.function_id),
        "code_sha256": build.code_sha256,
        "target": build.target,
    }
