"""Payloads and results that are too large for a row: real services, workers and Envoy."""

import asyncio
import functools
import hashlib
import json
import random
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CallFunctionRequest, StreamCallFunctionRequest
from faas.v1.replay_pb2 import CompareInvocationsRequest, ReplayInvocationRequest
from services.channels import from_rpc_error
from services.errors import (
    DependencyUnavailable,
    InvalidField,
    InvalidPayload,
    MeshError,
    RequestIdReused,
    TooLarge,
)
from tests.integration.gateway import reason
from tests.integration.test_calls import gateway
from tests.mesh import Mesh, eventually

MIB = 1024 * 1024
ECHO = {
    "python": """
def handler(payload, context):
    context.result_type = "x/y"
    return payload
""",
    "node": """
exports.handler = (payload, context) => {
  context.resultType = 'x/y';
  return payload;
};
""",
    "go": """
package main

import (
	"context"
	"encoding/json"
)

type raw []byte

func (raw) ContentType() string { return "x/y" }

func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	return raw(payload), nil
}
""",
}
LARGE = """
import os, time

def handler(payload):
    if isinstance(payload, bytes):
        return len(payload)
    with open(payload["file"], "a") as file:
        file.write("started\\n")
    while not os.path.exists(payload["file"] + ".go"):
        time.sleep(0.02)
    if "size" not in payload:
        raise LookupError("no size")
    return bytes([payload.get("fill", 1)]) * payload["size"]
"""


@functools.cache
def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
async def http(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    await mesh.start("functions", "invocations", "worker-1")
    async with gateway(mesh) as http:
        http.timeout = httpx.Timeout(300)
        yield http


def stored(mesh: Mesh) -> list[Path]:
    """The blobs that there are, and what is not one yet."""
    return sorted(p for p in (mesh.directory / "storage/invocations").rglob("*") if p.is_file())


def kept(mesh: Mesh, worker: str = "worker-1") -> list[Path]:
    """What a worker keeps of large content."""
    return list((mesh.directory / worker / "spool/large").iterdir())


async def forgotten(mesh: Mesh) -> None:
    """Wait until the worker keeps nothing: it hears of the commit after the caller."""

    async def look() -> bool:
        return not kept(mesh)

    await eventually("the worker keeps nothing", look)


async def streamed(
    mesh: Mesh,
    body: Iterable[bytes],
    function: str = "echo",
    content_type: str = "a/b",
    metadata: tuple[tuple[str, str], ...] = (),
) -> tuple[bytes, str]:
    """A raw call in chunks: the result and the invocation's id. Raises MeshError."""

    async def requests() -> AsyncIterator[StreamCallFunctionRequest]:
        first = HttpBody(content_type=content_type)
        yield StreamCallFunctionRequest(function_id=function, body=first)
        for chunk in body:
            yield StreamCallFunctionRequest(body=HttpBody(data=chunk))

    call = mesh.invocations.StreamCallFunction(requests(), timeout=300, metadata=metadata)
    try:
        parts = [part.data async for part in call]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, "InvocationService") from error
    return b"".join(parts), dict(await call.initial_metadata())["x-faas-invocation-id"]


def chunks(data: bytes, size: int = 100_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("language", ECHO)
async def test_what_goes_in_comes_back(mesh: Mesh, http: httpx.AsyncClient, language: str) -> None:
    await mesh.create("echo", ECHO[language], runtime=language, timeout={"seconds": 300})
    for size in (MIB, MIB + 1, 5 * MIB, 64 * MIB):
        body = noise(size)
        answer = await http.post("/functions/echo:call", content=body)
        assert answer.status_code == 200, answer.text
        assert sha256(answer.content) == sha256(body)
        assert answer.headers["content-type"] == "x/y"
        record = await mesh.get(answer.headers["x-faas-invocation-id"])
        assert record.status == Invocation.COMPLETED
        assert record.HasField("large_payload") == record.HasField("large_result") == (size > MIB)
        for part in ("payload", "result"):
            again = await http.get(f"/invocations/{record.id}/{part}")
            assert sha256(again.content) == sha256(body)
            assert again.headers["content-type"] == getattr(record, f"{part}_type")
            if size > MIB:
                large = getattr(record, f"large_{part}")
                assert (large.size_bytes, large.sha256) == (size, sha256(body))
                assert again.headers["x-faas-size-bytes"] == str(size)
                assert again.headers["x-faas-sha256"] == sha256(body)
    assert len(stored(mesh)) == 6
    await forgotten(mesh)


PROGRAM = """
import os, sys
sys.stdout.write('"' + open(os.environ["FUNCTION_PAYLOAD_FILE"]).read() * 2 + '"')
"""


async def test_json_and_programs_too(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.create("double", "def handler(payload):\n    return payload * 2\n")
    await mesh.create("program", PROGRAM, handler="main")
    rows = [{"n": 12345678901234567890, "t": "grüße"}] * 40_000
    body = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(body) > MIB
    answer = await http.post(
        "/functions/double:call", content=body, headers={"content-type": "application/json"}
    )
    assert answer.json() == rows * 2
    text = await http.post("/functions/program:call", content=b"x" * (2 * MIB))
    assert text.content == b'"' + b"x" * (4 * MIB) + b'"'
    # What is no JSON fails in the function, what is no text before.
    broken = await http.post(
        "/functions/double:call", content=body[:-1], headers={"content-type": "application/json"}
    )
    assert (broken.status_code, broken.headers["x-faas-error"]) == (502, "FUNCTION_ERROR")
    count = len(stored(mesh))
    with pytest.raises(InvalidPayload, match="body: it is not UTF-8"):
        await streamed(mesh, chunks(b'"' + b"\xff" * (2 * MIB)), "double", "application/json")
    assert len(stored(mesh)) == count


async def test_in_one_message(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo")
    await mesh.create("triple", "def handler(payload):\n    return payload * 3\n")
    done = await mesh.invoke("echo", "x" * (3 * MIB), wait_s=60)
    assert done.status == Invocation.COMPLETED
    assert (done.large_payload.size_bytes, done.large_result.size_bytes) == (3 * MIB + 2,) * 2
    assert not done.HasField("payload")
    assert not done.HasField("result")
    body = HttpBody(content_type="a/b", data=noise(6 * MIB))
    request = CallFunctionRequest(function_id="echo", body=body)
    answer = await mesh.invocations.CallFunction(request, timeout=60)
    assert answer.data == body.data
    request.function_id = "triple"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mesh.invocations.CallFunction(request, timeout=60)
    failure = from_rpc_error(raised.value, "InvocationService")
    assert isinstance(failure, TooLarge)
    record = await mesh.get(failure.metadata["invocation_id"])
    assert record.large_result.size_bytes == 18 * MIB


async def test_limits_to_the_byte(mesh: Mesh) -> None:
    limit = 3 * MIB
    settings = {"max_payload_bytes": limit, "max_result_bytes": limit}
    await mesh.start("functions", "invocations", **settings)
    await mesh.start("worker-1")
    await mesh.create("length", "def handler(payload):\n    return len(payload)\n")
    await mesh.create("make", "def handler(size):\n    return bytes(size)\n")
    assert (await streamed(mesh, chunks(bytes(limit)), "length"))[0] == str(limit).encode()
    assert len((await streamed(mesh, [str(limit).encode()], "make", "text/json"))[0]) == limit
    before = stored(mesh)
    with pytest.raises(TooLarge, match=f"body: is too large; at most {limit} bytes") as raised:
        await streamed(mesh, chunks(bytes(limit + 1)), "length")
    assert raised.value.metadata == {"limit_bytes": str(limit)}
    # Its worker lets more through: the service says how much it keeps.
    with pytest.raises(MeshError, match=f"result: is {limit + 1} bytes; at most {limit}") as failed:
        await streamed(mesh, [str(limit + 1).encode()], "make", "text/json")
    assert failed.value.metadata["code"] == "OUTPUT_TOO_LARGE"
    assert stored(mesh) == before
    await forgotten(mesh)
    async with gateway(mesh, call_limit_bytes=4 * MIB) as http:
        answer = await http.post("/functions/length:call", content=bytes(limit + 1))
        assert (answer.status_code, reason(answer)) == (429, "TOO_LARGE")
        # At once, before any of it has come.
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(
            b"POST /functions/length:call HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n" % (4 * MIB + 1)
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert head.startswith(b"HTTP/1.1 413 ")
        writer.close()
    await mesh.stop("worker-1")
    await mesh.start("worker-1", max_result_bytes=2 * MIB)
    with pytest.raises(MeshError, match=str(2 * MIB)) as failed:
        await streamed(mesh, [str(2 * MIB + 1).encode()], "make", "text/json")
    assert failed.value.metadata["code"] == "OUTPUT_TOO_LARGE"


async def test_bad_streams_leave_nothing(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    large = chunks(bytes(2 * MIB))
    for function, content_type, field in (
        ("", "a/b", "function_id"),
        ("echo", "nonsense", "body.content_type"),
    ):
        with pytest.raises(InvalidField) as refused:
            await streamed(mesh, large, function, content_type)
        assert [v.field for v in refused.value.violations] == [field]
    with pytest.raises(MeshError, match="nobody"):
        await streamed(mesh, large, "nobody")
    # A caller who goes away in the middle.
    sent = asyncio.Event()

    async def requests() -> AsyncIterator[StreamCallFunctionRequest]:
        yield StreamCallFunctionRequest(function_id="echo")
        for chunk in large:
            yield StreamCallFunctionRequest(body=HttpBody(data=chunk))
        sent.set()
        await asyncio.sleep(60)

    call = mesh.invocations.StreamCallFunction(requests(), timeout=60)
    reading = asyncio.ensure_future(anext(aiter(call), None))
    await sent.wait()

    async def begun() -> bool:
        return bool(stored(mesh))

    await eventually("it is being stored", begun)
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading

    async def gone() -> bool:
        return not stored(mesh)

    await eventually("what had come of it is removed", gone)
    assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 0}]


async def test_without_a_storage_only_what_rows_hold_is_taken(mesh: Mesh) -> None:
    await mesh.start("functions")
    await mesh.start("invocations", storage_url="")
    await mesh.start("worker-1")
    await mesh.create("length", "def handler(payload):\n    return len(payload)\n")
    await mesh.create("make", "def handler(size):\n    return bytes(size)\n")
    assert (await streamed(mesh, [bytes(MIB)], "length"))[0] == str(MIB).encode()
    with pytest.raises(TooLarge, match=f"at most {MIB} bytes"):
        await streamed(mesh, [bytes(MIB + 1)], "length")
    assert len((await streamed(mesh, [str(MIB).encode()], "make", "text/json"))[0]) == MIB
    with pytest.raises(MeshError, match=f"at most {MIB} bytes") as failed:
        await streamed(mesh, [str(MIB + 1).encode()], "make", "text/json")
    assert failed.value.metadata["code"] == "OUTPUT_TOO_LARGE"


async def test_one_request_id_is_one_invocation(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo")
    once = (("idempotency-key", "once"),)
    body = noise(2 * MIB)
    first = await streamed(mesh, chunks(body), metadata=once)
    count = len(stored(mesh))
    again = await streamed(mesh, chunks(body, 300_000), metadata=once)
    assert first == again == (body, first[1])
    for other, content_type in ((body[:-1] + b"!", "a/b"), (body, "c/d")):
        with pytest.raises(RequestIdReused):
            await streamed(mesh, chunks(other), content_type=content_type, metadata=once)
    assert len(stored(mesh)) == count == 2


async def test_redrive_and_replay_have_copies_of_their_own(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("length", "def handler(payload):\n    return payload.nobody\n")
    body = noise(2 * MIB)
    with pytest.raises(MeshError) as failed:
        await streamed(mesh, chunks(body), "length")
    source = failed.value.metadata["invocation_id"]
    replay = await mesh.invocations.ReplayInvocation(
        ReplayInvocationRequest(invocation_id=source, wait={"seconds": 60}), timeout=90
    )
    assert replay.invocation.status == Invocation.FAILED
    assert replay.comparison.equal
    (of_source, of_replay) = stored(mesh)
    # The source's day may be dropped before the other's.
    of_source.unlink()
    again = await mesh.invocations.ReplayInvocation(
        ReplayInvocationRequest(invocation_id=replay.invocation.id, wait={"seconds": 60}),
        timeout=90,
    )
    assert again.invocation.large_payload == replay.invocation.large_payload
    assert of_replay.read_bytes() == body
    assert len(stored(mesh)) == 2


async def test_large_results_are_compared_by_checksum(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("make", LARGE)
    (tmp_path / "f.go").touch()
    asked = {"file": str(tmp_path / "f")}
    one, same, other, small = [
        await mesh.invoke("make", {**asked, **values}, wait_s=60)
        for values in (
            {"size": 2 * MIB},
            {"size": 2 * MIB},
            {"size": 2 * MIB, "fill": 2},
            {"size": 10},
        )
    ]

    async def compared(first: Invocation, second: Invocation) -> list[str]:
        request = CompareInvocationsRequest(invocation_id=second.id, **{"with": first.id})
        found = await mesh.invocations.CompareInvocations(request, timeout=60)
        assert found.equal == (not found.differences)
        return [difference.path for difference in found.differences]

    assert await compared(one, same) == []
    assert await compared(one, other) == ["/result/sha256"]
    assert await compared(one, small) == ["/result/size_bytes", "/result/sha256"]


async def started(file: Path, times: int = 1) -> None:
    async def look() -> bool:
        return file.exists() and len(file.read_text().split()) >= times

    await eventually(f"it was started {times} times", look, 90)


async def test_a_result_survives_the_worker_that_could_not_store_it(
    mesh: Mesh, tmp_path: Path
) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("make", LARGE)
    file = tmp_path / "starts"
    record = await mesh.invoke("make", {"file": str(file), "size": 5 * MIB})
    await started(file)
    # The storage takes nothing, so the result stays with the worker.
    mesh.signal("invocations", signal.SIGSTOP)
    file.with_suffix(".go").touch()

    async def spooled() -> bool:
        large = [path for path in kept(mesh) if path.suffix == ".result"]
        spools = (mesh.directory / "worker-1/spool").glob("*.spool")
        told = any(b"inv-" in path.read_bytes()[:4096] for path in spools)
        return told and bool(large) and large[0].stat().st_size == 5 * MIB

    await eventually("its verdict is spooled", spooled, 60)
    await mesh.kill("worker-1")
    mesh.signal("invocations", signal.SIGCONT)
    await mesh.start("worker-1")
    ended = await mesh.get(record.id, wait_s=90)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 1)
    assert ended.large_result.sha256 == sha256(b"\1" * (5 * MIB))
    assert file.read_text() == "started\n"
    await forgotten(mesh)


async def test_a_service_killed_while_a_result_is_stored(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("make", LARGE, timeout={"seconds": 120})
    file = tmp_path / "starts"
    record = await mesh.invoke("make", {"file": str(file), "size": 48 * MIB})
    await started(file)
    file.with_suffix(".go").touch()

    async def arriving() -> bool:
        return bool(stored(mesh))

    await eventually("it is being stored", arriving, 60)
    await mesh.kill("invocations")
    await mesh.start("invocations")
    ended = await mesh.get(record.id, wait_s=120)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 1)
    assert ended.large_result.sha256 == sha256(b"\1" * (48 * MIB))
    assert file.read_text() == "started\n"


async def test_a_storage_that_is_away(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.start("functions")
    await mesh.start("invocations", overtime_s=1)
    await mesh.start("worker-1")
    await mesh.create("make", LARGE, timeout={"seconds": 3})
    await mesh.create("echo")
    # Its code, which is kept there too, is with the worker then.
    assert (await mesh.invoke("echo", 1, wait_s=60)).status == Invocation.COMPLETED
    file = tmp_path / "starts"
    record = await mesh.invoke("make", {"file": str(file), "size": 2 * MIB})
    await started(file)
    storage = mesh.directory / "storage"
    storage.rename(mesh.directory / "away")
    storage.touch()  # nothing can be kept in a file
    file.with_suffix(".go").touch()

    async def waits() -> bool:
        return "has to be stored again" in mesh.log("worker-1")

    await eventually("its result cannot be stored", waits, 60)
    with pytest.raises(DependencyUnavailable):
        await streamed(mesh, chunks(bytes(2 * MIB)), "make")
    assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 2}]

    # Longer than its timeout and overtime: its worker says that it has ended.
    async def overdue() -> bool:
        query = """SELECT 1 AS due FROM invocations WHERE status = 'running'
          AND started_at < now() - interval '8 s'"""
        return bool(mesh.rows(query))

    await eventually("it would be overdue", overdue)
    # What is small goes on meanwhile.
    assert (await mesh.invoke("echo", 1, wait_s=60)).status == Invocation.COMPLETED
    assert (await mesh.get(record.id)).status == Invocation.RUNNING
    storage.unlink()
    (mesh.directory / "away").rename(storage)
    ended = await mesh.get(record.id, wait_s=60)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 1)
    assert ended.large_result.size_bytes == 2 * MIB
    assert file.read_text() == "started\n"


async def test_what_is_lost_in_the_storage_is_said(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.create("echo", ECHO["python"])
    answer = await http.post("/functions/echo:call", content=noise(2 * MIB))
    for blob in stored(mesh):
        blob.unlink()
    name = answer.headers["x-faas-invocation-id"]
    for part in ("payload", "result"):
        again = await http.get(f"/invocations/{name}/{part}")
        assert (again.status_code, reason(again)) == (500, "INTERNAL_ERROR")
        assert "does not have the content" in again.json()["message"]
