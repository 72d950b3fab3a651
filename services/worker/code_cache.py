"""Versions of functions on this machine: fetched once, immutable, kept for good."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path
from typing import TYPE_CHECKING

from faas.v1.function_pb2 import CodeFormat, FunctionVersion
from faas.v1.function_registry_service_pb2 import (
    CodeChunk,
    FetchCodeRequest,
    GetVersionRequest,
)
from services import archive
from services.channels import mesh_errors
from services.errors import MeshError
from services.worker.runtime import FunctionSpec

if TYPE_CHECKING:
    from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceAsyncStub

FETCH_S = 60.0
_ONE_SHOT = {FunctionVersion.WARM: False, FunctionVersion.ONE_SHOT: True}
SOURCE_FILES = {"python": "main.py", "node": "main.js", "go": "main.go"}


class CodeCache:
    """Specs and unpacked code below one directory."""

    def __init__(
        self,
        functions: "FunctionRegistryServiceAsyncStub",
        directory: Path,
        *,
        max_unpacked_bytes: int,
    ) -> None:
        """Fetch from `functions` into `directory`/<function>/<version>/."""
        self._functions = functions
        self._directory = directory
        self._max_unpacked_bytes = max_unpacked_bytes
        self._specs: dict[tuple[str, int], FunctionSpec] = {}
        self._fetching: dict[tuple[str, int], asyncio.Task[FunctionSpec]] = {}

    async def get(self, function_id: str, version: int) -> FunctionSpec:
        """One version with its code on this machine.

        Raises MeshError: VersionNotFound, DependencyUnavailable and the like.
        """
        key = (function_id, version)
        if key in self._specs:
            return self._specs[key]
        # One fetch for all that wait for it; it goes on when one of them is cancelled.
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(function_id, version), name=f"fetch {key}")
            self._fetching[key] = task
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        self._specs[key] = await asyncio.shield(task)
        return self._specs[key]

    async def _fetch(self, function_id: str, version: int) -> FunctionSpec:
        request = GetVersionRequest(function_id=function_id, version=version)
        async with mesh_errors("FunctionService"):
            found = await self._functions.GetVersion(request, timeout=FETCH_S)
        home = self._directory / function_id / str(version)
        code_dir = home / "code"
        if not await asyncio.to_thread(code_dir.is_dir):
            fetch = FetchCodeRequest(function_id=found.function_id, version=found.version)
            await unpack(
                found,
                self._functions.FetchCode(fetch, timeout=FETCH_S),
                code_dir,
                max_unpacked_bytes=self._max_unpacked_bytes,
            )
        return FunctionSpec(
            function_id=function_id,
            version=version,
            runtime=found.runtime,
            handler=found.handler,
            memory_mb=found.memory_mb,
            cpus=found.cpus,
            env=dict(found.env),
            code_dir=code_dir,
            build_dir=home / "build",
            one_shot=_ONE_SHOT.get(found.sandbox),
        )


async def unpack(
    version: FunctionVersion,
    chunks: AsyncIterable[CodeChunk],
    code_dir: Path,
    *,
    max_unpacked_bytes: int,
) -> None:
    """Make `code_dir` complete or not at all: unpacked beside it, then renamed.

    The code comes in `chunks`, which FunctionService sends. Raises MeshError.
    """
    scratch = await asyncio.to_thread(_scratch, code_dir.parent)
    try:
        await _download(version, chunks, scratch / "download")
        limits = archive.Limits(unpacked_bytes=max_unpacked_bytes)
        await asyncio.to_thread(_extract, version, scratch, code_dir, limits)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def _download(version: FunctionVersion, chunks: AsyncIterable[CodeChunk], file: Path) -> None:
    digest = hashlib.sha256()
    with file.open("wb") as output:
        async with mesh_errors("FunctionService"):
            async for chunk in chunks:
                digest.update(chunk.data)
                output.write(chunk.data)
    if digest.hexdigest() != version.code_sha256:
        raise MeshError("FunctionService sent code with another checksum than it stated.")


def _extract(
    version: FunctionVersion, scratch: Path, code_dir: Path, limits: archive.Limits
) -> None:
    unpacked = scratch / "code"
    unpacked.mkdir()
    if version.code_format == CodeFormat.CODE_FORMAT_TEXT:
        name = SOURCE_FILES.get(version.runtime, "main")
        shutil.copyfile(scratch / "download", unpacked / name)
        (unpacked / name).chmod(0o644)
    else:
        archive.extract(scratch / "download", version.code_format, unpacked, limits)
    unpacked.chmod(0o755)
    try:
        unpacked.rename(code_dir)
    except OSError:
        # Another worker on this directory was faster: then it is there.
        if not code_dir.is_dir():
            raise


def _scratch(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix=".unpacking-"))
