"""A FunctionService for tests: the real server, in this process, on a free port."""

import io
import zipfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psycopg
import pytest

from faas.v1.function_build_service_pb2_grpc import FunctionBuildServiceStub
from faas.v1.function_pb2 import Function, FunctionVersion
from faas.v1.function_registry_service_pb2 import FetchCodeRequest, GetVersionRequest
from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceStub
from faas.v1.function_service_pb2 import (
    CreateFunctionRequest,
    DeleteFunctionRequest,
    GetFunctionRequest,
    ListFunctionsRequest,
    UpdateFunctionRequest,
    UploadCodeRequest,
)
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from services.channels import connect, from_rpc_error
from services.errors import MeshError
from services.functions.__main__ import service
from services.functions.settings import Settings

HANDLER = "def handler(payload, context):\n    return payload\n"


@dataclass
class Functions:
    """A running service, and what its tests ask of it."""

    database_url: str
    directory: Path
    public: FunctionServiceStub
    registry: FunctionRegistryServiceStub
    builds: FunctionBuildServiceStub
    address: str

    async def create(self, name: str = "echo", **fields: Any) -> Function:
        """Create a function, of a handler in Python unless `fields` say otherwise."""
        values = {"name": name, "runtime": "python", **fields}
        if not values.keys() & {"code", "archive", "upload_id"}:
            values["code"] = HANDLER
        return await self.public.CreateFunction(CreateFunctionRequest(**values))

    async def get(self, reference: str) -> Function:
        """One function."""
        return await self.public.GetFunction(GetFunctionRequest(function_id=reference))

    async def update(self, reference: str, **fields: Any) -> Function:
        """Change a function."""
        return await self.public.UpdateFunction(
            UpdateFunctionRequest(function_id=reference, **fields)
        )

    async def delete(self, reference: str, etag: str = "") -> None:
        """Delete a function."""
        await self.public.DeleteFunction(DeleteFunctionRequest(function_id=reference, etag=etag))

    async def names(self, **fields: Any) -> list[str]:
        """The names on one page of a list."""
        answer = await self.public.ListFunctions(ListFunctionsRequest(**fields))
        return [function.name for function in answer.functions]

    async def upload(self, data: bytes, chunk_bytes: int = 1000) -> Any:
        """Upload an archive in chunks."""

        async def chunks() -> AsyncIterator[UploadCodeRequest]:
            for start in range(0, len(data), chunk_bytes):
                request = UploadCodeRequest()
                request.chunk.data = data[start : start + chunk_bytes]
                yield request

        return await self.public.UploadCode(chunks(), timeout=60)

    async def kept_version(self, function_id: str, version: int) -> FunctionVersion:
        """One version, as workers read it."""
        return await self.registry.GetVersion(
            GetVersionRequest(function_id=function_id, version=version)
        )

    async def fetch(self, function_id: str, version: int) -> bytes:
        """The code of one version, as workers read it."""
        request = FetchCodeRequest(function_id=function_id, version=version)
        return b"".join([chunk.data async for chunk in self.registry.FetchCode(request)])

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row
        return int(row[0])

    def objects(self) -> list[Path]:
        """All files in the code storage."""
        return sorted(path for path in (self.directory / "code").rglob("*") if path.is_file())


@asynccontextmanager
async def serve(database_url: str, directory: Path, **settings: Any) -> AsyncIterator[Functions]:
    """A service on this database, its code below this directory."""
    values = {"database_url": database_url, "storage_url": f"file://{directory}/code", **settings}
    async with service(Settings(**values)) as server:
        await server.start()
        address = f"127.0.0.1:{server.port}"
        async with connect(address) as channel:
            public, registry = FunctionServiceStub(channel), FunctionRegistryServiceStub(channel)
            builds = FunctionBuildServiceStub(channel)
            try:
                yield Functions(database_url, directory, public, registry, builds, address)
            finally:
                await server.stop()


async def refused(call: Awaitable[Any], error: type[MeshError], *fields: str) -> MeshError:
    """The error that `call` must end with, naming exactly these fields."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    found = from_rpc_error(caught.value, "FunctionService")
    assert type(found) is error, found
    assert caught.value.code().value[0] == error.code
    assert {violation.field for violation in found.violations} == set(fields)
    return found


def a_zip(files: dict[str, str]) -> bytes:
    """A zip of these files."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return output.getvalue()
