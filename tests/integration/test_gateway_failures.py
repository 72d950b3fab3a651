"""What Envoy answers by itself: in one shape over HTTP, with details over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from faas.v1.function_service_pb2 import CreateFunctionRequest, GetFunctionRequest
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2 import InvokeRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from services.channels import connect
from tests.integration.gateway import Stack, reason, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}
JSON_LIMIT = 1024 * 1024 + 64 * 1024
# Envoy's default for a route; ours must not be it.
ENVOYS_DEFAULT_TIMEOUT_S = 15


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(run_dir: Path) -> AsyncIterator[Stack]:
    async with running_stack(run_dir / "gw-failures") as running:
        yield running


def a_body(size: int) -> bytes:
    """An Invoke of exactly `size` bytes."""
    start, end = b'{"function_id": "f", "payload": "', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


async def test_a_body_up_to_the_limit_is_taken(stack):
    async with stack.envoy.client() as http:
        answer = await http.post("/invoke", content=a_body(JSON_LIMIT), headers=JSON)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["payload"]) > 1024 * 1024


@pytest.mark.parametrize("streamed", [False, True], ids=["with a length", "streamed"])
@pytest.mark.parametrize("path", ["/invoke", "/functions"])
async def test_a_larger_body_is_413(stack, path, streamed):
    before = len(stack.invocations.calls), len(stack.functions.calls)
    body = a_body(JSON_LIMIT + 1)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with stack.envoy.client() as http:
        answer = await http.post(path, content=pieces() if streamed else body, headers=JSON)
    assert answer.status_code == 413, answer.text
    assert reason(answer) == "TOO_LARGE"
    assert answer.json()["code"] == 8
    assert str(JSON_LIMIT) in answer.json()["message"]
    assert "/uploads" in answer.json()["message"]
    assert (len(stack.invocations.calls), len(stack.functions.calls)) == before


async def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_sent(stack):
    # Envoy says "100 Continue" before it looks; the verdict needs no byte of the body.
    answer = await _raw(
        stack,
        "PUT /uploads HTTP/1.1",
        "content-length: 99999999999",
        "expect: 100-continue",
    )
    assert "HTTP/1.1 413 " in answer
    assert '"TOO_LARGE"' in answer


async def test_an_upload_is_asked_for_as_curl_waits_for_it(stack):
    reader, writer = await _connect(stack)
    writer.write(
        b"PUT /uploads HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
        b"expect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(30):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"4\r\nPK\x03\x04\r\n0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_headers_beyond_the_limit_are_431(stack):
    async with stack.envoy.client() as http:
        large = await http.get("/functions/f", headers={"x-large": "x" * 40_000})
        many = await http.get("/functions/f", headers={f"x-{n}": "x" for n in range(120)})
    for answer in (large, many):
        assert answer.status_code == 431, answer.text
        assert reason(answer) == "TOO_LARGE"


@pytest.mark.parametrize(
    "path",
    ["/functions%2Ff", "/functions/a%2fb", "/functions/a%5cb", "/functions/%2e%2e%2fhealth"],
)
async def test_an_escaped_slash_is_no_path_of_ours(stack, path):
    answer = await _raw(stack, f"GET {path} HTTP/1.1")
    assert answer.startswith("HTTP/1.1 400 ")
    assert '"MALFORMED_REQUEST"' in answer


async def test_a_path_means_what_it_normally_means(stack):
    for path in ("/functions/../functions/f", "//functions///f", "/functions/./f"):
        answer = await _raw(stack, f"GET {path} HTTP/1.1")
        assert answer.startswith("HTTP/1.1 200 "), path
        assert '"name":"f"' in answer


@pytest.mark.parametrize(
    "request_lines",
    [
        pytest.param(["nonsense"], id="nonsense"),
        pytest.param(["GET / HTTP/1.1", "a b: c"], id="header"),
        pytest.param(
            ["POST /invoke HTTP/1.1", "content-length: 3", "content-length: 5"], id="lengths"
        ),
        pytest.param(
            ["POST /invoke HTTP/1.1", "content-length: 3", "transfer-encoding: chunked"],
            id="smuggling",
        ),
        pytest.param(["GET /functions/f\x00 HTTP/1.1"], id="NUL"),
    ],
)
async def test_what_is_no_http_is_400(stack, request_lines):
    before = len(stack.functions.calls) + len(stack.invocations.calls)
    answer = await _raw(stack, *request_lines)
    assert answer.startswith("HTTP/1.1 400 "), answer
    assert len(stack.functions.calls) + len(stack.invocations.calls) == before


async def _connect(stack: Stack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", stack.envoy.port)


async def _raw(stack: Stack, *lines: str) -> str:
    """What is answered to these lines, until the other side closes."""
    reader, writer = await _connect(stack)
    head = "\r\n".join([*lines, "host: localhost", "connection: close", "", ""])
    writer.write(head.encode("latin-1"))
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_a_request_that_does_not_arrive_is_408(stack):
    reader, writer = await _connect(stack)
    writer.write(b"GET /functions/f HTTP/1.1\r\nhost: localhost\r\n")
    async with asyncio.timeout(60):
        answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 408 ")
    assert '"TOO_SLOW"' in answer


async def test_a_message_beyond_the_server_s_limit_is_refused(stack):
    request = CreateFunctionRequest(name="f", runtime="python", archive=b"x" * 17 * 1024 * 1024)
    async with connect(stack.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await FunctionServiceStub(channel).CreateFunction(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_may_take_longer_than_envoy_s_own_default(stack):
    stack.invocations.takes_s = ENVOYS_DEFAULT_TIMEOUT_S + 1
    try:
        async with stack.envoy.client() as http, connect(stack.target) as channel:
            over_http, over_grpc = await asyncio.gather(
                http.post("/invoke", json={"function_id": "f"}),
                InvocationServiceStub(channel).Invoke(InvokeRequest(function_id="f")),
            )
    finally:
        stack.invocations.takes_s = 0.0
    assert over_http.json()["id"] == over_grpc.id == "inv-1"


async def test_a_service_that_takes_too_long_is_504(run_dir):
    async with running_stack(run_dir / "gw-slow", hurried=True) as stack:
        stack.invocations.takes_s = 60
        async with stack.envoy.client() as http:
            answer = await http.post("/invoke", json={"function_id": "f"})
        assert answer.status_code == 504, answer.text
        assert reason(answer) == "TOO_SLOW"
        assert answer.json()["code"] == 4
        error = await _refused(stack)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert _reason(error) == "TOO_SLOW"


async def test_a_service_that_is_away_is_503(run_dir):
    async with running_stack(run_dir / "gw-away") as stack:
        await stack.servers["invocations"].stop()
        async with stack.envoy.client() as http:
            answer = await http.post("/invoke", json={"function_id": "f"})
            other = await http.get("/functions/f")
        assert answer.status_code == 503, answer.text
        assert reason(answer) == "DEPENDENCY_UNAVAILABLE"
        assert answer.json()["code"] == 14
        assert ".sock" not in answer.text
        assert other.status_code == 200
        error = await _refused(stack)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "The service does not answer. Nothing was changed; try again."
        assert _reason(error) == "DEPENDENCY_UNAVAILABLE"
        async with connect(stack.target) as channel:
            request = GetFunctionRequest(function_id="f")
            assert (await FunctionServiceStub(channel).GetFunction(request)).name == "f"


async def test_without_the_gateway_s_process_its_pages_are_503(stack):
    async with stack.envoy.client() as http:
        for path in ("/health", "/openapi.json"):
            answer = await http.get(path)
            assert answer.status_code == 503, answer.text
            assert reason(answer) == "DEPENDENCY_UNAVAILABLE"


async def _refused(stack: Stack) -> grpc.aio.AioRpcError:
    async with connect(stack.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await InvocationServiceStub(channel).Invoke(InvokeRequest(function_id="f"))
    return caught.value


def _reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "faas-mesh"
    return info.reason
