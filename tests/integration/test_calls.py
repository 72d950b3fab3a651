"""CallFunction: real services and a worker, over gRPC and through a real Envoy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CallFunctionRequest, ListInvocationsRequest
from tests.integration.gateway import reason, running_envoy
from tests.mesh import Mesh, eventually

BYTES = bytes(range(256)) * 64
ECHO = """
def handler(payload, context):
    if isinstance(payload, bytes):
        context.result_type = context.payload_type
    return payload
"""
FAIL = """
import os, time
def handler(payload):
    if payload == "raise":
        raise LookupError("nobody is there")
    if payload == "exit":
        os._exit(3)
    if payload == "nan":
        return float("nan")
    time.sleep(60)
"""
WAIT = """
import time
def handler(payload):
    print("in", flush=True)
    time.sleep(payload)
    return "done"
"""


@asynccontextmanager
async def gateway(mesh: Mesh, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    addresses = {
        "functions_address": mesh.address("functions"),
        "invocations_address": mesh.address("invocations"),
    }
    async with (
        running_envoy(mesh.directory, **addresses, **settings) as envoy,
        envoy.client() as http,
    ):
        http.base_url = envoy.url
        yield http


@pytest.fixture
async def http(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    await mesh.start("functions", "invocations", "worker-1")
    async with gateway(mesh) as http:
        yield http


async def test_bodies_and_types_are_kept(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.create("echo", ECHO)
    kept = [
        (b'{"id":  12345678901234567890123, "x":1.10}', None),  # as Python writes it again
        (BYTES, "application/octet-stream"),
        (b"a=1&b=%20", "application/x-www-form-urlencoded"),
        ("grüße".encode(), "text/plain; charset=utf-8"),
        (b"", "image/png"),
        (b"\x00", "Text/HTML;level=1"),
    ]
    for body, content_type in kept:
        headers = {"content-type": content_type or "application/json"}
        answer = await http.post("/functions/echo:call", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        if content_type is None:
            assert answer.content == b'{"id":12345678901234567890123,"x":1.1}'
            assert answer.headers["content-type"] == "application/json"
        else:
            assert answer.content == body
            assert answer.headers["content-type"] == content_type
        record = await mesh.get(answer.headers["x-faas-invocation-id"])
        assert record.status == Invocation.COMPLETED
        assert record.payload_type == headers["content-type"]
        assert record.result_type == answer.headers["content-type"]
        assert record.HasField("payload") == (content_type is None)
        assert record.HasField("result") == (content_type is None)
        assert "x-faas-error" not in answer.headers
        # Both are there to be read again, as they were.
        for part, content in (("payload", body), ("result", answer.content)):
            again = await http.get(f"/invocations/{record.id}/{part}")
            assert (again.status_code, again.content) == (200, content)
            assert again.headers["content-type"] == getattr(record, f"{part}_type")

    nothing = await http.post("/functions/echo:call")
    assert (nothing.status_code, nothing.content) == (200, b"null")
    untyped = await http.post("/functions/echo:call", content=b"\xff\x00")
    assert untyped.headers["content-type"] == "application/octet-stream"
    assert untyped.content == b"\xff\x00"


async def test_one_idempotency_key_is_one_invocation(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.create("echo", ECHO)
    headers = {"idempotency-key": "once", "content-type": "a/b"}
    first, again = [
        await http.post("/functions/echo:call", content=b"x", headers=headers) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (200, 200), first.text + again.text
    assert first.headers["x-faas-invocation-id"] == again.headers["x-faas-invocation-id"]
    assert (again.status_code, again.content) == (200, b"x")
    headers["content-type"] = "c/d"
    other = await http.post("/functions/echo:call", content=b"x", headers=headers)
    assert (other.status_code, reason(other)) == (409, "REQUEST_ID_REUSED")


async def test_over_grpc_too(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    function = await mesh.create("echo", ECHO)
    body = HttpBody(content_type="x/y", data=BYTES)
    for name in ("echo", function.id):
        request = CallFunctionRequest(function_id=name, body=body, function_version=1)
        call = mesh.invocations.CallFunction(request, timeout=60)
        answer = await call
        assert (answer.content_type, answer.data) == ("x/y", BYTES)
        assert dict(await call.initial_metadata())["x-faas-invocation-id"].startswith("inv-")
    # In the queue and in lists bytes are as good as JSON.
    listed = await mesh.invocations.ListInvocations(ListInvocationsRequest())
    assert [invocation.payload_type for invocation in listed.invocations] == ["x/y", "x/y"]


async def test_failures_of_the_function_are_told_from_the_platforms(
    mesh: Mesh, http: httpx.AsyncClient
) -> None:
    await mesh.create("fail", FAIL, timeout={"seconds": 5})
    expected = {
        "raise": (502, 2, "FUNCTION_FAILED", "FUNCTION_ERROR"),
        "exit": (502, 2, "FUNCTION_FAILED", "FUNCTION_CRASHED"),
        "nan": (502, 2, "FUNCTION_FAILED", "BAD_OUTPUT"),
        "sleep": (504, 4, "FUNCTION_TIMED_OUT", "TIMEOUT"),
    }
    for how, (status, code, why, error) in expected.items():
        answer = await http.post("/functions/fail:call", json=how)
        assert answer.status_code == status, answer.text
        assert (answer.json()["code"], reason(answer)) == (code, why)
        assert answer.headers["x-faas-error"] == error
        metadata = answer.json()["details"][0]["metadata"]
        assert metadata["code"] == error
        assert metadata["invocation_id"] == answer.headers["x-faas-invocation-id"]
        record = await mesh.get(metadata["invocation_id"])
        assert Invocation.ErrorCode.Name(record.error.code) == error
        assert answer.json()["message"] == record.error.message
        again = await http.get(f"/invocations/{record.id}/result")
        assert (again.status_code, reason(again)) == (404, "RESULT_NOT_FOUND")
        assert again.json()["details"][0]["metadata"]["code"] == error
    assert answer.json()["message"].startswith("The function was still running")

    missing = await http.post("/functions/nobody:call", json=1)
    assert (missing.status_code, reason(missing)) == (404, "FUNCTION_NOT_FOUND")
    mesh.processes["functions"].terminate()
    mesh.processes["functions"].wait(30)
    away = await http.post("/functions/fail:call", json=1)
    assert (away.status_code, reason(away)) == (503, "DEPENDENCY_UNAVAILABLE")
    for answer in (missing, away):
        assert "x-faas-error" not in answer.headers
        assert "x-faas-invocation-id" not in answer.headers


async def test_bad_bodies_are_refused_and_leave_nothing(
    mesh: Mesh, http: httpx.AsyncClient
) -> None:
    await mesh.create("echo", ECHO)
    deep = b"[" * 33 + b"]" * 33
    json_type = "application/json"
    bad = [
        (b"{", json_type, 400, "INVALID_PAYLOAD"),
        (b"NaN", "application/vnd.api+json", 400, "INVALID_PAYLOAD"),
        (b"\xff", "text/json", 400, "INVALID_PAYLOAD"),
        (b'"\\ud800"', json_type, 400, "INVALID_PAYLOAD"),
        (deep, json_type, 400, "INVALID_PAYLOAD"),
        (b"x", "nonsense", 400, "INVALID_FIELD"),
        (b"x", "a/" + "b" * 300, 400, "INVALID_FIELD"),
    ]
    for body, content_type, status, why in bad:
        headers = {"content-type": content_type}
        answer = await http.post("/functions/echo:call", content=body, headers=headers)
        assert (answer.status_code, reason(answer)) == (status, why), answer.text
    listed = await mesh.invocations.ListInvocations(ListInvocationsRequest())
    assert not listed.invocations
    largest = await http.post("/functions/echo:call", content=bytes(1024 * 1024))
    assert largest.status_code == 200
    assert largest.content == bytes(1024 * 1024)
    invocation_id = largest.headers["x-faas-invocation-id"]
    assert (await http.get(f"/invocations/{invocation_id}/payload")).content == largest.content


async def test_a_wait_that_ends_leaves_it_running(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("wait", WAIT)
    request = CallFunctionRequest(
        function_id="wait", body=HttpBody(content_type="application/json", data=b"4")
    )
    call = mesh.invocations.CallFunction(request, timeout=3)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    invocation_id = dict(await call.initial_metadata())["x-faas-invocation-id"]
    assert invocation_id in (ended.value.details() or "")
    record = await mesh.get(invocation_id, wait_s=30)
    assert record.status == Invocation.COMPLETED
    assert record.result.string_value == "done"


async def test_who_disconnects_does_not_harm_it(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.create("wait", WAIT)

    async def runs() -> str:
        listed = await mesh.invocations.ListInvocations(ListInvocationsRequest())
        running = [i.id for i in listed.invocations if i.status == Invocation.RUNNING]
        return running[0] if running else ""

    calling = asyncio.create_task(http.post("/functions/wait:call", json=3))
    invocation_id = await eventually("it runs", runs)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (await mesh.get(invocation_id, wait_s=30)).status == Invocation.COMPLETED


async def test_pages_of_other_origins_cannot_call(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo", ECHO)
    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ]
    taken = [
        {},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
    ]
    async with gateway(mesh, allowed_origins="https://app.example") as http:
        for headers in refused:
            for path in ("/functions/echo:call", "/functions/echo:call?function_version=1"):
                answer = await http.post(path, content=b"a=1", headers={**form, **headers})
                assert (answer.status_code, reason(answer)) == (403, "ORIGIN_NOT_ALLOWED"), headers
        for headers in taken:
            answer = await http.post(
                "/functions/echo:call", content=b"a=1", headers={**form, **headers}
            )
            assert (answer.status_code, answer.content) == (200, b"a=1"), headers
        exposed = answer.headers["access-control-expose-headers"]
        assert "x-faas-invocation-id" in exposed
        # Other routes take JSON alone, as before.
        for path in ("/invoke", "/functions", "/functions/a:call/b", "/functions/a/b:call"):
            answer = await http.post(path, content=b"a=1", headers=form)
            assert (answer.status_code, reason(answer)) == (415, "UNSUPPORTED_CONTENT_TYPE"), path
    listed = await mesh.invocations.ListInvocations(ListInvocationsRequest())
    assert len(listed.invocations) == len(taken)
