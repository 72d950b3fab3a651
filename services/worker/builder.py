"""Compiles functions for the mesh, one at a time: takes builds and hands in binaries.

A build is granted by FunctionService for a lease. Whatever goes wrong here, without an
end it is somebody else's when the lease is over.
"""

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from google.protobuf.duration_pb2 import Duration

from faas.v1.function_build_service_pb2 import (
    FetchSourceRequest,
    FinishBuildRequest,
    RenewBuildRequest,
    TakeBuildRequest,
    TakeBuildResponse,
)
from services.channels import mesh_errors
from services.errors import DependencyUnavailable, MeshError
from services.worker.code_cache import FETCH_S, unpack
from services.worker.go_build import BINARY
from services.worker.runtime import (
    COMPILED,
    FunctionFailure,
    FunctionSpec,
    Runtime,
    RuntimeUnavailable,
)

if TYPE_CHECKING:
    from faas.v1.function_build_service_pb2_grpc import FunctionBuildServiceAsyncStub

ASK_S = 20.0
ANSWER_S = 10.0
# Between looks whether it may build, and tries to hand in; and after trouble.
PAUSE_S = 1.0
TROUBLE_S = 3.0
# A lease is renewed so often within its time.
RENEWALS = 3
HAND_IN_S = 120.0
HAND_IN_TRIES = 5
GOODBYE_S = 2.0
CHUNK_BYTES = 512 * 1024

log = structlog.get_logger()


class Builder:
    """Builds, in a directory of its own."""

    def __init__(
        self,
        builds: "FunctionBuildServiceAsyncStub",
        runtime: Runtime,
        directory: Path,
        *,
        worker_id: str,
        max_unpacked_bytes: int,
    ) -> None:
        """Take builds from `builds` and do them by `runtime`."""
        self._builds = builds
        self._runtime = runtime
        self._directory = directory
        self._worker_id = worker_id
        self._max_unpacked_bytes = max_unpacked_bytes
        self._trouble = ""

    async def run(self, may_build: Callable[[], bool]) -> None:
        """Take and do builds until cancelled, while `may_build` allows it."""
        # What an earlier start had in hands.
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        while True:
            if not may_build() or COMPILED not in self._runtime.images():
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                taken = await self._take(await self._runtime.target())
                if taken.grant:
                    await self._do(taken)
                self._trouble = ""
            except (RuntimeUnavailable, MeshError) as error:
                if str(error) != self._trouble:
                    log.warning("nothing can be compiled now; will try again", reason=str(error))
                self._trouble = str(error)
                await asyncio.sleep(TROUBLE_S)

    async def _take(self, target: str) -> TakeBuildResponse:
        request = TakeBuildRequest(
            worker_id=self._worker_id,
            runtime=COMPILED,
            target=target,
            wait=Duration(seconds=int(ASK_S)),
        )
        async with mesh_errors("FunctionService"):
            return await self._builds.TakeBuild(request, timeout=ASK_S + ANSWER_S)

    async def _do(self, taken: TakeBuildResponse) -> None:
        """One build, as long as its lease is held."""
        home = self._directory / taken.grant
        building = asyncio.create_task(self._build(taken, home), name="build a function")
        renewing = asyncio.create_task(self._renew(taken), name="renew a build's lease")
        try:
            await asyncio.wait({building, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not building.done():
                log.warning("a build is no longer ours", function_id=taken.version.function_id)
        finally:
            building.cancel()
            renewing.cancel()
            await asyncio.wait({building, renewing})
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
        if not building.cancelled():
            building.result()

    async def _renew(self, taken: TakeBuildResponse) -> None:
        """Renew the lease until it is lost."""
        interval_s = taken.lease.ToTimedelta().total_seconds() / RENEWALS
        held = True
        while held:
            await asyncio.sleep(interval_s)
            # Unanswered, it may still be held: the next answer will tell.
            with contextlib.suppress(DependencyUnavailable):
                async with mesh_errors("FunctionService"):
                    request = RenewBuildRequest(grant=taken.grant)
                    held = (await self._builds.RenewBuild(request, timeout=interval_s)).held

    async def _build(self, taken: TakeBuildResponse, home: Path) -> None:
        """Build and tell how it ended, whatever that is."""
        try:
            failure = await self._compiled(taken, home)
        except (RuntimeUnavailable, MeshError, OSError) as error:
            await self._finish(FinishBuildRequest(grant=taken.grant, given_back=str(error)))
        except asyncio.CancelledError:
            ending = FinishBuildRequest(grant=taken.grant, given_back="Its worker shut down.")
            with contextlib.suppress(MeshError):
                await asyncio.shield(self._tell(ending, None, GOODBYE_S))
            raise
        else:
            binary = home / "build" / BINARY
            if failure is not None:
                message = failure.message or "The compiler failed without a word."
                await self._finish(FinishBuildRequest(grant=taken.grant, error=message))
            else:
                ending = FinishBuildRequest(grant=taken.grant)
                ending.binary.sha256 = await asyncio.to_thread(_sha256, binary)
                await self._finish(ending, binary)
            log.info(
                "built a function" if failure is None else "a function cannot be built",
                function_id=taken.version.function_id,
                code_sha256=taken.version.code_sha256,
            )

    async def _compiled(self, taken: TakeBuildResponse, home: Path) -> FunctionFailure | None:
        version = taken.version
        source = FetchSourceRequest(grant=taken.grant)
        await unpack(
            version,
            self._builds.FetchSource(source, timeout=FETCH_S),
            home / "code",
            max_unpacked_bytes=self._max_unpacked_bytes,
        )
        spec = FunctionSpec(
            function_id=version.function_id,
            version=version.version,
            runtime=version.runtime,
            handler=version.handler,
            memory_mb=0,
            cpus=0,
            env={},
            code_dir=home / "code",
            build_dir=home / "build",
        )
        return await self._runtime.build(spec)

    async def _finish(self, ending: FinishBuildRequest, binary: Path | None = None) -> None:
        """Tell how a build ended, again while FunctionService does not answer."""
        for _ in range(HAND_IN_TRIES - 1):
            with contextlib.suppress(DependencyUnavailable):
                await self._tell(ending, binary, HAND_IN_S)
                return
            await asyncio.sleep(PAUSE_S)
        await self._tell(ending, binary, HAND_IN_S)

    async def _tell(self, ending: FinishBuildRequest, binary: Path | None, time_s: float) -> None:
        async with mesh_errors("FunctionService"):
            answer = await self._builds.FinishBuild(_messages(ending, binary), timeout=time_s)
        if not answer.recorded:
            log.warning("a build was over before its end was told", grant=ending.grant)


async def _messages(
    ending: FinishBuildRequest, binary: Path | None
) -> AsyncIterator[FinishBuildRequest]:
    yield ending
    if binary is not None:
        with binary.open("rb") as file:
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield FinishBuildRequest(data=data)


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
