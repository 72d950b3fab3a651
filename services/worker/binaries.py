"""What was compiled of functions, on this machine: fetched once, kept for good.

Whoever compiled it, it comes from FunctionService, and is taken if its checksum is
what FunctionService states.
"""

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from faas.v1.function_build_service_pb2 import (
    AwaitBuildRequest,
    AwaitBuildResponse,
    FetchBinaryRequest,
)
from faas.v1.function_pb2 import FunctionVersion
from faas.v1.invocation_pb2 import Invocation
from services.channels import mesh_errors
from services.errors import MeshError
from services.worker.go_build import BINARY
from services.worker.runtime import FunctionFailure, FunctionSpec, Runtime, RuntimeUnavailable

if TYPE_CHECKING:
    from faas.v1.function_build_service_pb2_grpc import FunctionBuildServiceAsyncStub

# One question waits so long for its answer, and an invocation for its function's build.
ASK_S = 20.0
PATIENCE_S = 300.0
ANSWER_S = 10.0
FETCH_S = 120.0
TARGET = "target"
"""The file beside a binary that says what it fits."""


class Binaries:
    """The binaries in the build directories of a worker's versions."""

    def __init__(self, builds: "FunctionBuildServiceAsyncStub", runtime: Runtime) -> None:
        """Fetch from `builds` what fits `runtime`."""
        self._builds = builds
        self._runtime = runtime
        self._there: set[Path] = set()
        self._getting: dict[Path, asyncio.Task[FunctionFailure | None]] = {}

    async def get(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Have the build directory of `spec` hold its binary, or say why there is none.

        Waits while it is being built. Raises RuntimeUnavailable where it cannot be for
        now, MeshError and OSError.
        """
        if spec.build_dir in self._there:
            return None
        # Asked for once for all that wait; it goes on when one of them is cancelled.
        task = self._getting.get(spec.build_dir)
        if task is None:
            task = asyncio.create_task(self._get(spec), name=f"binary {spec.function_id}")
            self._getting[spec.build_dir] = task
            task.add_done_callback(lambda _: self._getting.pop(spec.build_dir, None))
        return await asyncio.shield(task)

    async def _get(self, spec: FunctionSpec) -> FunctionFailure | None:
        target = await self._runtime.target()
        if not await asyncio.to_thread(_fits, spec.build_dir, target):
            build = await self._ended(spec, target)
            if build.state == FunctionVersion.FAILED:
                return FunctionFailure(Invocation.FUNCTION_ERROR, build.reason, type="CompileError")
            await self._fetch(spec, target, build.sha256)
        self._there.add(spec.build_dir)
        return None

    async def _ended(self, spec: FunctionSpec, target: str) -> AwaitBuildResponse:
        request = AwaitBuildRequest(
            function_id=spec.function_id,
            version=spec.version,
            target=target,
            wait=Duration(seconds=int(ASK_S)),
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            async with mesh_errors("FunctionService"):
                build = await self._builds.AwaitBuild(request, timeout=ASK_S + ANSWER_S)
            if build.state != FunctionVersion.BUILDING:
                return build
            if build.reason:
                raise RuntimeUnavailable(f"it could not be built yet: {build.reason}")
            if time.monotonic() > deadline:
                raise RuntimeUnavailable(f"it was not built within {PATIENCE_S:g} s")

    async def _fetch(self, spec: FunctionSpec, target: str, sha256: str) -> None:
        request = FetchBinaryRequest(
            function_id=spec.function_id, version=spec.version, target=target
        )
        with _scratch(spec.build_dir.parent) as file:
            digest = hashlib.sha256()
            async with mesh_errors("FunctionService"):
                with file.open("wb") as output:
                    async for chunk in self._builds.FetchBinary(request, timeout=FETCH_S):
                        digest.update(chunk.data)
                        output.write(chunk.data)
            if digest.hexdigest() != sha256:
                raise MeshError("FunctionService sent a binary with another checksum.")
            await asyncio.to_thread(_put, file, spec.build_dir, target)


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A file to be, in a directory that goes."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetching-") as directory:
        yield Path(directory) / BINARY


def _put(file: Path, build_dir: Path, target: str) -> None:
    file.chmod(0o755)
    build_dir.mkdir(exist_ok=True)
    # What says that it fits is there only while it does.
    (build_dir / TARGET).unlink(missing_ok=True)
    file.replace(build_dir / BINARY)
    (build_dir / TARGET).write_text(target)


def _fits(build_dir: Path, target: str) -> bool:
    try:
        return (build_dir / TARGET).read_text() == target and (build_dir / BINARY).exists()
    except FileNotFoundError:
        return False
