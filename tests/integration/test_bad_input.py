"""What is wrong is refused by name, over HTTP and over gRPC, and nothing is written."""

import asyncio
import base64
from collections.abc import AsyncIterator

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.rpc import code_pb2

from faas.v1.invocation_service_pb2 import InvokeRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from services.pages import make_token
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.conftest import new_database
from tests.integration.platform import (
    BINDINGS,
    Platform,
    answer_of,
    answer_of_error,
    new_request,
    running_platform,
)
from tests.mesh import ECHO

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = code_pb2.INVALID_ARGUMENT
NOT_FOUND = code_pb2.NOT_FOUND
CONFLICT = code_pb2.ALREADY_EXISTS
NO_UUID = "00000000-0000-7000-8000-000000000000"
NEW = {"name": "new", "runtime": "python", "code": ECHO}
WORLD = "\u4e16"
SQL = "'; DROP TABLE functions; --"
HTTP_STATUS = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.ABORTED: 409,
    code_pb2.RESOURCE_EXHAUSTED: 429,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(postgres_server: Postgres, valkey_server: Valkey) -> AsyncIterator[Platform]:
    """Two functions, `taken` and `echo`, and one invocation."""
    with new_database(postgres_server) as database_url:
        async with running_platform(database_url, valkey_server.url) as platform:
            await platform.mesh.create("taken")
            await platform.mesh.create("echo", code=ECHO)
            await platform.mesh.invoke("echo", 1, request_id="used")
            yield platform


def a_token(rpc: str, *position: object) -> str:
    """A page token that looks as ours do, with a position that nobody made."""
    return make_token(new_request(rpc), list(position))


def create(**fields: object) -> tuple[str, dict]:
    return "CreateFunction", {**NEW, **fields}


def update(**fields: object) -> tuple[str, dict]:
    return "UpdateFunction", {"function_id": "echo", **fields}


def invoke(**fields: object) -> tuple[str, dict]:
    return "Invoke", {"function_id": "echo", **fields}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


FIELD = [
    *[
        (create(name=name), "name")
        for name in ("", "../x", "a/b", "a\x00", "a\n", "x" * 64, "\u0430", "Echo", "func-a", SQL)
    ],
    *[(create(runtime=runtime), "runtime") for runtime in ("", "../python", "py thon", SQL)],
    *[(create(memory_mb=memory), "memory_mb") for memory in (-1, 0, 15, 32769, 2**31 - 1)],
    *[(create(cpus=cpus), "cpus") for cpus in (0, -1, 129, "NaN", "Infinity")],
    *[(create(timeout=timeout), "timeout") for timeout in ("0s", "-1s", "901s", "900.000000001s")],
    *[
        (create(env={name: "x"}), f'env["{name}"]')
        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "FUNCTION_PAYLOAD", "FAAS_X", "A=B", "")
    ],
    (create(env={"A": "\x00"}), 'env["A"]'),
    (create(labels={SQL: "x"}), f'labels["{SQL}"]'),
    *[(create(handler=handler), "handler") for handler in ("../main", "a.b.c", "main;x", SQL)],
    (create(handler="other.handler"), "handler"),
    (create(code=""), "code"),
    (create(description="a\x00"), "description"),
    (("CreateFunction", {"name": "new", "runtime": "python"}), "source"),
    *[
        (create(retry_policy={"max_attempts": 1} | policy), f"retry_policy.{named}")
        for policy, named in (
            ({"max_attempts": 0}, "max_attempts"),
            ({"max_attempts": 21}, "max_attempts"),
            ({"initial_backoff": "-1s"}, "initial_backoff"),
            ({"max_backoff": "86401s"}, "max_backoff"),
            ({"retry_on": ["WORKER_LOST"]}, "retry_on[0]"),
            ({"retry_on": ["TIMEOUT", "TIMEOUT"]}, "retry_on"),
        )
    ],
    *[(create(max_age=age), "max_age") for age in ("0s", "-1s", "2592001s")],
    *[(create(max_concurrency=number), "max_concurrency") for number in (-1, 100_001)],
    *[(create(min_warm=number), "min_warm") for number in (-1, 1001)],
    (create(min_warm=1, sandbox=2), "min_warm"),
    (create(sandbox=9), "sandbox"),
    (update(min_warm=1, sandbox="ONE_SHOT"), "min_warm"),
    (update(sandbox=-1), "sandbox"),
    (update(memory_mb=0), "memory_mb"),
    (update(timeout="901s"), "timeout"),
    (update(name="../x"), "name"),
    (update(env={"LD_PRELOAD": "x"}), 'env["LD_PRELOAD"]'),
    (update(update_mask="nonsense"), "update_mask"),
    (update(update_mask="name"), "update_mask"),
    (update(update_mask="id"), "update_mask"),
    (invoke(function_id=""), "function_id"),
    (invoke(function_id="x" * 129), "function_id"),
    (invoke(function_version=-1), "function_version"),
    (invoke(wait="-1s"), "wait"),
    (invoke(wait="901s"), "wait"),
    (invoke(labels={"": "x"}), 'labels[""]'),
    (invoke(request_id="x" * 129), "request_id"),
    (invoke(request_id="\x00"), "request_id"),
    (invoke(request_id="redrive:inv-1"), "request_id"),
    (invoke(request_id="sched-1"), "request_id"),
    (("ListFunctions", {"page_size": -1}), "page_size"),
    (("ListInvocations", {"page_size": -1}), "page_size"),
    *[
        (("GetInvocation", {"invocation_id": key}), "invocation_id")
        for key in ("x", f"INV-{NO_UUID}", f"inv-{NO_UUID}0", f"inv-{NO_UUID} ", SQL)
    ],
]
OTHERS = [
    (create(runtime="cobol"), INVALID, "UNKNOWN_RUNTIME", "runtime"),
    (update(runtime="cobol"), INVALID, "UNKNOWN_RUNTIME", "runtime"),
    (create(name="taken"), CONFLICT, "FUNCTION_EXISTS", ""),
    (update(name="taken"), CONFLICT, "FUNCTION_EXISTS", ""),
    (update(etag="stale", memory_mb=256), code_pb2.ABORTED, "ETAG_MISMATCH", ""),
    (
        ("DeleteFunction", {"function_id": "echo", "etag": "stale"}),
        code_pb2.ABORTED,
        "ETAG_MISMATCH",
        "",
    ),
    (
        ("CreateFunction", {"name": "new", "runtime": "python", "upload_id": "upload-x"}),
        NOT_FOUND,
        "UPLOAD_NOT_FOUND",
        "",
    ),
    *[
        ((rpc, {"function_id": reference, **more}), NOT_FOUND, "FUNCTION_NOT_FOUND", "")
        for reference in ("missing", f"func-{NO_UUID}", "a\x00b", "\u0430", SQL, "' OR '1'='1")
        for rpc, more in (
            ("GetFunction", {}),
            ("UpdateFunction", {"memory_mb": 256}),
            ("DeleteFunction", {}),
            ("ListFunctionVersions", {}),
            ("Invoke", {}),
        )
    ],
    (
        ("GetFunctionVersion", {"function_id": "echo", "version": 99}),
        NOT_FOUND,
        "VERSION_NOT_FOUND",
        "",
    ),
    (invoke(request_id="used", payload=2), CONFLICT, "REQUEST_ID_REUSED", "request_id"),
    (invoke(function_version=99), NOT_FOUND, "VERSION_NOT_FOUND", ""),
    (invoke(payload=nested(33)), INVALID, "INVALID_PAYLOAD", "payload"),
    *[
        ((rpc, {"invocation_id": f"inv-{NO_UUID}"}), NOT_FOUND, "INVOCATION_NOT_FOUND", "")
        for rpc in ("GetInvocation", "GetInvocationLogs")
    ],
    *[
        ((rpc, {"worker_id": key}), NOT_FOUND, "WORKER_NOT_FOUND", "")
        for rpc in ("GetWorker", "DrainWorker")
        for key in ("worker-x", f"worker-{NO_UUID}", "a\x00", SQL)
    ],
    *[
        (("ListFunctions", {"filter": text}), INVALID, "INVALID_FILTER", "filter")
        for text in (
            "name =",
            'name = "',
            "nonsense = 1",
            "version = x",
            "name = 'a' ; DROP",
            "(" * 40 + "name = a" + ")" * 40,
            "created_at > yesterday",
            'name = "a\x00"',
            "version > 99999999999999999999",
            SQL,
        )
    ],
    *[
        (("ListFunctions", {"order_by": text}), INVALID, "INVALID_FILTER", "order_by")
        for text in ("id; DROP TABLE functions", "nonsense", "name down", SQL)
    ],
    *[
        ((rpc, {**fields, "page_token": token}), INVALID, "INVALID_PAGE_TOKEN", "page_token")
        for rpc, fields, positions in (
            ("ListFunctions", {}, ["x", ["2020-01-01T00:00:00+00:00", "func-x"], ["\ud800", 1]]),
            ("ListInvocations", {}, [["x"], [NO_UUID[:-1]], [SQL], ["\ud800"], [True]]),
            ("ListWorkers", {}, [[{}], [1]]),
        )
        for token in (
            "x",
            "!!!",
            "\u0430",
            base64.urlsafe_b64encode(b"[]").decode(),
            base64.urlsafe_b64encode(b"[" * 700).decode(),
            *(a_token(rpc, *position) for position in positions),
        )
    ],
]
CASES = [(asked, INVALID, "INVALID_FIELD", named) for asked, named in FIELD] + OTHERS


@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize(
    ("asked", "code", "reason", "named"),
    CASES,
    ids=[f"{n}-{case[0][0]}-{case[3] or case[2]}" for n, case in enumerate(CASES)],
)
async def test_it_is_refused_and_nothing_is_written(platform, way, asked, code, reason, named):
    before = platform.written()
    answer = await platform.ask(way, *asked)
    if way == "http" and _path_has_nul(*asked):
        code, reason = INVALID, "MALFORMED_REQUEST"  # no such path gets as far as a service
    assert (answer.code, answer.reason) == (code, reason), answer
    assert answer.fields == ({named} if named else set())
    assert answer.message
    assert "Traceback" not in answer.message
    if way == "http":
        assert answer.http_status == HTTP_STATUS[code]
    assert platform.written() == before


def _path_has_nul(rpc: str, fields: dict) -> bool:
    path = BINDINGS[rpc][1]
    return any("\x00" in str(value) for name, value in fields.items() if f"{{{name}}}" in path)


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        *[
            ("/functions", body, "MALFORMED_REQUEST")
            for body in (
                "{",
                '{"name": "new",,}',
                "nonsense",
                "[]",
                '"text"',
                '{"name": ["new"]}',
                '{"name": "new", "memory_mb": 9223372036854775808}',
                '{"name": "new", "memory_mb": 4294967424}',
                '{"name": "new", "memory_mb": 128.5}',
                '{"name": "new", "memory_mb": "many"}',
                '{"name": "new", "timeout": "soon"}',
                '{"name": "new", "timeout": "99999999999999s"}',
                '{"name": "new", "cpus": 1e999}',
                '{"name": "new", "archive": "!not base64!"}',
                '{"name": "new", "env": {"A": 1}}',
                '{"name": "new", "env": []}',
                '{"name": "new", "code": "a", "archive": "YQ=="}',
                "{" * 200_000,
            )
        ],
        *[
            ("/invoke", f'{{"function_id": "echo", "payload": {payload}}}', reason)
            for payload, reason in (
                ("NaN", "MALFORMED_REQUEST"),
                ("Infinity", "MALFORMED_REQUEST"),
                ("1e999", "MALFORMED_REQUEST"),
                ("undefined", "MALFORMED_REQUEST"),
                ("[1", "MALFORMED_REQUEST"),
                ('"\\ud800"', "MALFORMED_REQUEST"),
                ('{"\\udfff": 1}', "MALFORMED_REQUEST"),
                ("[" * 33 + "]" * 33, "INVALID_PAYLOAD"),
                ("[" * 60 + "]" * 60, "MALFORMED_REQUEST"),
                ("[" * 100_000 + "]" * 100_000, "MALFORMED_REQUEST"),
            )
        ],
    ],
)
async def test_what_json_cannot_say_is_400(platform, path, body, reason):
    before = platform.written()
    answer = answer_of(
        await platform.http.post(path, content=body, headers={"content-type": "application/json"})
    )
    assert (answer.http_status, answer.reason) == (400, reason), answer
    assert answer.message
    assert platform.written() == before


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a\x01\xff", id="no UTF-8"),
        pytest.param(b"\x0a\x05a", id="cut off"),
        pytest.param(b"\xff" * 20, id="nonsense"),
        pytest.param(b"\x12\x04" + b"\x32\x02" * 3000, id="broken nesting"),
    ],
)
async def test_bytes_that_are_no_request_are_refused(platform, data):
    before = platform.written()
    call = platform.channel.unary_unary("/faas.v1.InvocationService/Invoke")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(data)
    answer = answer_of_error(caught.value)
    assert (answer.code, answer.reason) == (INVALID, "MALFORMED_REQUEST")
    assert platform.written() == before


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
async def test_a_number_that_json_lacks_is_no_payload(platform, number):
    before = platform.written()
    request = InvokeRequest(function_id="echo")
    request.payload.list_value.values.add().number_value = number
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await InvocationServiceStub(platform.channel).Invoke(request)
    answer = answer_of_error(caught.value)
    assert (answer.code, answer.reason) == (INVALID, "INVALID_PAYLOAD")
    assert answer.fields == {"payload"}
    assert platform.written() == before


@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize(
    "asked",
    [
        create(env={f"{n} {'x' * 60}": "x" for n in range(1000)}),
        create(env={f"{n} {WORLD * 200}": "x" for n in range(100)}),
        invoke(labels={f"{n} {'x' * 1000}": "x" for n in range(60)}),
        update(update_mask=",".join(f"nonsense{n}" for n in range(2000))),
    ],
    ids=["many", "many and long", "long", "mask"],
)
async def test_whatever_is_wrong_the_error_fits_into_headers(platform, way, asked):
    before = platform.written()
    answer = await platform.ask(way, *asked)
    assert (answer.code, answer.reason) == (INVALID, "INVALID_FIELD"), answer
    assert answer.fields
    assert answer.message.endswith("\u2026")
    assert platform.written() == before


async def test_nobody_elses_call_ends_with_a_long_error(platform):
    """It would take the connection along that Envoy has with the service."""
    listed = await platform.ask("grpc", "ListInvocations", {})
    waits = {"invocation_id": listed.body["invocations"][0]["id"], "wait": "3s"}
    waiting = asyncio.create_task(platform.ask("http", "GetInvocation", waits))
    while not waiting.done():
        answer = await platform.ask("http", *invoke(labels={"x" * 70_000: "x"}))
        assert answer.code == INVALID
    assert (await waiting).body["status"] == "PENDING"


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_a_payload_beyond_its_limit_is_too_large(platform, way):
    before = platform.written()
    asked = ("Invoke", {"function_id": "echo", "payload": "x" * (1024 * 1024 - 1)})
    answer = await platform.ask(way, *asked)
    assert answer.reason == "TOO_LARGE", answer
    assert answer.code == code_pb2.RESOURCE_EXHAUSTED
    assert platform.written() == before


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_positions_that_no_page_has_are_refused(platform, way):
    listed = await platform.ask("grpc", "ListInvocations", {})
    key = listed.body["invocations"][0]["id"]
    for rpc, fields in (
        ("ListFunctionVersions", {"function_id": "echo"}),
        ("GetInvocationLogs", {"invocation_id": key}),
    ):
        request = json_format.ParseDict(fields, new_request(rpc))
        width = 1 if rpc == "ListFunctionVersions" else 3
        for number in (2**31, -(2**31), 2**63, 2**70, "x", True, None):
            token = make_token(request, [number] * width)
            answer = await platform.ask(way, rpc, {**fields, "page_token": token})
            assert (answer.code, answer.reason) == (INVALID, "INVALID_PAGE_TOKEN"), number


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_sql_is_text_like_any_other(platform, way):
    name = f"sql-{way}"
    fields = {"name": name, "description": SQL, "env": {"A": SQL}, "labels": {"a": SQL}}
    made = await platform.ask(way, *create(**fields))
    assert made.code == 0, made
    assert made.body["description"] == SQL
    quoted = SQL.replace("'", "\\'")
    found = await platform.ask(way, "ListFunctions", {"filter": f"labels.a = '{quoted}'"})
    assert name in [each["name"] for each in found.body["functions"]]
    run = await platform.ask(way, *invoke(payload={SQL: SQL}, labels={"a": SQL}))
    kept = await platform.ask(way, "GetInvocation", {"invocation_id": run.body["id"]})
    assert kept.body["payload"] == {SQL: SQL}
    assert kept.body["labels"] == {"a": SQL}
    assert platform.written()["functions"] >= 3


@pytest.mark.parametrize(
    ("key", "status", "reason"),
    [
        ("used", 409, "REQUEST_ID_REUSED"),
        ("x" * 129, 400, "INVALID_FIELD"),
        ("x" * 20_000, 400, "INVALID_FIELD"),
    ],
)
async def test_an_idempotency_key_is_held_to_the_rules_of_the_field(platform, key, status, reason):
    before = platform.written()
    body = {"function_id": "echo", "payload": 2}
    sent = await platform.http.post("/invoke", json=body, headers={"idempotency-key": key})
    answer = answer_of(sent)
    assert (answer.http_status, answer.reason) == (status, reason), answer
    assert answer.fields == {"request_id"}
    assert platform.written() == before


async def test_forged_headers_change_nothing(platform):
    forged = {"x-faas-user": "root", "x-forwarded-user": "root", "x-faas-worker-id": "worker-1"}
    body = {**NEW, "name": "forged"}
    made = await platform.http.post("/functions", json=body, headers=forged)
    plain = await platform.http.get("/functions/forged")
    assert made.status_code == 200
    assert made.json() == plain.json()
    assert "root" not in plain.text


async def test_code_that_does_not_parse_is_accepted(platform):
    """Its syntax error is the function's, at the first call."""
    answer = await platform.ask("http", *create(name="broken", code="def handler(:"))
    assert answer.code == 0, answer
    assert answer.body["name"] == "broken"
