"""Large content where it is harder: in Docker, in S3, and with parts killed in its midst."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psycopg
import pytest
from google.api.httpbody_pb2 import HttpBody

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import StreamCallFunctionRequest
from services.invocations.blobs import FOLDER, Blobs
from services.invocations.database import Database
from services.invocations.partitions import Partitions
from services.storage import open_storage
from tests.faults.test_docker import no_containers
from tests.integration.gateway import reason
from tests.integration.test_big_payloads import (
    ECHO,
    LARGE,
    MIB,
    chunks,
    forgotten,
    noise,
    sha256,
    started,
    stored,
    streamed,
)
from tests.integration.test_calls import gateway
from tests.integration.test_code_storage import SECRETS, s3_endpoint
from tests.mesh import Mesh, eventually

__all__ = ["s3_endpoint"]

# The least age of orphans that there is to set.
ORPHANS = {"orphan_sweep_interval_s": 0.2, "orphan_age_s": 60}


@pytest.mark.docker
@pytest.mark.parametrize("sandboxes", ["warm", "one-shot"])
async def test_in_containers(mesh: Mesh, docker_engine: Path, sandboxes: str) -> None:
    await mesh.start("functions", "invocations")
    settings = {"runtime": "docker", "network": "none", "prewarmed": 0, "sandboxes": sandboxes}
    await mesh.start("worker-1", docker_socket=docker_engine, **settings)
    await mesh.create("echo", ECHO["python"], timeout={"seconds": 120})
    # The last one after a large one: in the same sandbox, where that is warm.
    for size in (5 * MIB, 48 * MIB, 3 * MIB):
        body = noise(size)
        answer, name = await streamed(mesh, chunks(body))
        assert sha256(answer) == sha256(body)
        record = await mesh.get(name)
        assert record.large_payload.sha256 == record.large_result.sha256 == sha256(body)
        assert record.large_result.size_bytes == size
    await forgotten(mesh)
    await mesh.stop("worker-1")
    await eventually("no container is left", lambda: no_containers(mesh), 60)


async def test_in_s3_from_acceptance_to_the_end_of_its_day(
    mesh: Mesh, s3_endpoint: str, tmp_path: Path
) -> None:
    url = f"s3://content/{tmp_path.name}"
    s3 = {
        "storage_url": url,
        "s3_endpoint": s3_endpoint,
        "s3_access_key_id": SECRETS["key_id"],
        "s3_secret_access_key": SECRETS["secret"],
    }
    await mesh.start("functions", "invocations", **s3)
    await mesh.start("worker-1")
    await mesh.create("echo", ECHO["python"])
    storage = open_storage(url, endpoint=s3_endpoint, **SECRETS)
    body = noise(12 * MIB)  # more than one part of an upload
    async with gateway(mesh) as http:
        answer = await http.post("/functions/echo:call", content=body, timeout=120)
        assert answer.status_code == 200, answer.text
        assert sha256(answer.content) == sha256(body)
        name = answer.headers["x-faas-invocation-id"]
        for part in ("payload", "result"):
            again = await http.get(f"/invocations/{name}/{part}")
            assert sha256(again.content) == sha256(body)
            assert again.headers["x-faas-sha256"] == sha256(body)
        kept = [found async for found in storage.list_all(FOLDER)]
        assert [found.size_bytes for found in kept] == [len(body)] * 2
        assert not stored(mesh)

        database = Database(mesh.database_url, connections=2)
        await database.open()
        blobs = Blobs(storage, max_payload_bytes=1, max_result_bytes=1, transfers=1)
        partitions = Partitions(database, retention_days=30, on_drop=blobs.drop_day)

        async def dropped() -> bool:
            # It gives way where the table is in use.
            await partitions.expire(datetime.now(UTC).date() + timedelta(days=32))
            return [found async for found in storage.list_all(FOLDER)] == []

        await eventually("its day is dropped, and what lies in its folder with it", dropped)
        await database.close()
        gone = await http.get(f"/invocations/{name}/result")
        assert (gone.status_code, reason(gone)) == (404, "INVOCATION_NOT_FOUND")


def grow_old(mesh: Mesh) -> None:
    """Have what is stored be as old as orphans are."""
    then = time.time() - 3600
    for path in stored(mesh):
        os.utime(path, (then, then))


async def nothing_is_stored(mesh: Mesh) -> None:
    async def look() -> bool:
        return not stored(mesh)

    await eventually("what was left is swept", look)


async def test_a_service_killed_while_a_payload_comes(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo", ECHO["python"])

    async def requests() -> AsyncIterator[StreamCallFunctionRequest]:
        yield StreamCallFunctionRequest(function_id="echo")
        for chunk in chunks(noise(4 * MIB)):
            yield StreamCallFunctionRequest(body=HttpBody(data=chunk))
        await asyncio.Event().wait()

    call = mesh.invocations.StreamCallFunction(requests(), timeout=120)
    reading = asyncio.ensure_future(anext(aiter(call), None))

    async def arriving() -> bool:
        return any(path.stat().st_size > MIB for path in stored(mesh))

    await eventually("it is being stored", arriving)
    await mesh.kill("invocations")
    with pytest.raises(grpc.aio.AioRpcError):
        await reading
    left = stored(mesh)
    assert len(left) == 1
    await mesh.start("invocations", **ORPHANS)
    assert mesh.rows("SELECT 1 AS one FROM invocations") == []
    assert stored(mesh) == left  # it might still be coming
    grow_old(mesh)
    await nothing_is_stored(mesh)


@pytest.mark.parametrize("committed", [True, False])
async def test_a_service_killed_between_storing_and_accepting(mesh: Mesh, committed: bool) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo", ECHO["python"])
    body = noise(2 * MIB)
    waiting = """SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
      AND datname = current_database() AND query LIKE '%%WITH wanted AS%%'"""
    with psycopg.connect(mesh.database_url) as holder:
        holder.execute("LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE")
        calling = asyncio.ensure_future(streamed(mesh, chunks(body)))

        async def held() -> bool:
            return bool(mesh.rows(waiting))

        await eventually("its acceptance waits for the lock", held)
        (blob,) = stored(mesh)
        assert blob.read_bytes() == body
        await mesh.kill("invocations")
        with pytest.raises(Exception, match="InvocationService does not answer"):
            await calling
        if not committed:
            mesh.rows(waiting.replace("pid", "pg_terminate_backend(pid)", 1))

            async def ended() -> bool:
                return not mesh.rows(waiting)

            await eventually("nothing accepts any more", ended)
        holder.rollback()

    async def settled() -> bool:
        rows = mesh.rows("SELECT id FROM invocations")
        return len(rows) == committed

    await eventually("PostgreSQL has decided", settled)
    nobodys = blob.with_name(".writing-nobodys")
    nobodys.touch()
    grow_old(mesh)
    await mesh.start("invocations", **ORPHANS)
    if not committed:
        await nothing_is_stored(mesh)
        return

    async def swept() -> bool:
        return not nobodys.exists()

    await eventually("its day was swept", swept)
    # Nobody was given its id, but accepted it is, with all that it names.
    assert stored(mesh) == [blob]
    await mesh.start("worker-1")
    (row,) = mesh.rows("SELECT 'inv-' || id AS id FROM invocations")
    ended_record = await mesh.get(str(row["id"]), wait_s=60)
    assert ended_record.status == Invocation.COMPLETED
    assert ended_record.large_result.sha256 == sha256(body)
    assert len(stored(mesh)) == 2


async def test_a_worker_killed_while_its_result_is_stored(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("make", LARGE, timeout={"seconds": 120})
    file = tmp_path / "starts"
    size = 48 * MIB
    record = await mesh.invoke("make", {"file": str(file), "size": size})
    await started(file)
    file.with_suffix(".go").touch()

    def arrived() -> int:
        return sum(path.stat().st_size for path in stored(mesh))

    async def arriving() -> bool:
        return arrived() > 0

    await eventually("its result is being stored", arriving, 60)
    mesh.signal("invocations", signal.SIGSTOP)
    assert 0 < arrived() < size, "it was to be killed in the midst of it"
    await mesh.kill("worker-1")
    mesh.signal("invocations", signal.SIGCONT)
    await mesh.start("worker-1")
    ended = await mesh.get(record.id, wait_s=120)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 1)
    assert ended.large_result.sha256 == sha256(b"\1" * size)
    assert file.read_text() == "started\n"
    assert arrived() == size
    await forgotten(mesh)
