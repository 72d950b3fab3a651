"""Invoking and getting, through all parts: what is answered, and when."""

import asyncio
from datetime import timedelta

import grpc.aio
import pytest
import pytest_asyncio

from faas.json_values import to_python, to_value
from faas.v1.function_service_pb2 import DeleteFunctionRequest, UpdateFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import GetInvocationRequest, InvokeRequest
from services.errors import (
    FunctionNotFound,
    InvalidField,
    InvalidPayload,
    InvocationNotFound,
    VersionNotFound,
)
from services.ids import INVOCATION, new_uuid, show
from tests.integration.functions import refused
from tests.mesh import ECHO, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60
PHASES = ("queued", "assigned", "startup", "run", "report")
HOLD = """
import pathlib, time

def handler(payload, context):
    while not pathlib.Path(payload).exists():
        time.sleep(0.02)
    return "released"
"""
LIMIT = 1024 * 1024


@pytest_asyncio.fixture(loop_scope="module")
async def echo(shared_mesh: Mesh) -> str:
    """A function that answers what it was given."""
    name = f"echo-{new_uuid()}"
    await shared_mesh.create(name)
    return name


async def test_a_call_that_does_not_wait_is_answered_with_the_accepted_record(
    shared_mesh: Mesh, echo: str
) -> None:
    made = await shared_mesh.invoke(echo, {"a": 1}, labels={"team": "search"})
    assert made.id.startswith("inv-")
    assert made.status == Invocation.PENDING
    assert (made.function_name, made.function_version) == (echo, 1)
    assert dict(made.labels) == {"team": "search"}
    assert to_python(made.payload) == {"a": 1}
    done = await shared_mesh.get(made.id, wait_s=WAIT_S)
    assert (done.id, done.status, done.attempt) == (made.id, Invocation.COMPLETED, 1)
    assert to_python(done.result) == {"a": 1}
    assert done.worker_id.startswith("worker-")
    assert done.runtime_image == "process"
    assert done.created_at.ToNanoseconds() <= done.started_at.ToNanoseconds()
    assert done.started_at.ToNanoseconds() <= done.completed_at.ToNanoseconds()
    for name in ("duration", *PHASES, "load", "cpu_time"):
        assert done.metrics.HasField(name), name
    assert done.metrics.peak_memory_bytes > 0


async def test_phases_follow_one_another_from_acceptance_to_verdict(shared_mesh: Mesh) -> None:
    name = f"slow-{new_uuid()}"
    code = "import time\ntime.sleep(0.2)\ndef handler(p):\n    return p\n"
    await shared_mesh.create(name, code)
    done = await shared_mesh.invoke(name, wait_s=WAIT_S)
    metrics = done.metrics
    took = {phase: getattr(metrics, phase).ToNanoseconds() / 1e9 for phase in PHASES}
    load = metrics.load.ToNanoseconds() / 1e9
    assert 0.2 <= load <= took["run"]
    # Of the grant's way to the worker both clocks know; each is told in microseconds.
    over = sum(took.values()) - metrics.duration.ToNanoseconds() / 1e9
    assert -1e-3 <= over <= took["assigned"] + 1e-3


async def test_a_call_that_waits_is_answered_with_the_verdict(shared_mesh: Mesh, echo: str) -> None:
    payload = {"grüße": ["世界", 1.5, None, True], "n": 2**53, "": "\u0000"}
    done = await shared_mesh.invoke(echo, payload, wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    assert to_python(done.result) == payload
    assert await shared_mesh.get(done.id) == done


async def test_ids_and_names_and_versions_name_a_function(shared_mesh: Mesh, echo: str) -> None:
    function_id = (await shared_mesh.invoke(echo, wait_s=WAIT_S)).function_id
    by_id = await shared_mesh.invoke(function_id, 5, wait_s=WAIT_S, function_version=1)
    assert (by_id.function_id, by_id.function_name) == (function_id, echo)
    assert to_python(by_id.result) == 5


async def test_a_wait_ends_and_the_invocation_goes_on(shared_mesh: Mesh) -> None:
    name = f"hold-{new_uuid()}"
    await shared_mesh.create(name, HOLD)
    release = shared_mesh.directory / name
    early = await shared_mesh.invoke(name, str(release), wait_s=0.3)
    assert early.status in (Invocation.PENDING, Invocation.RUNNING)
    assert not early.HasField("completed_at")
    waiting = [asyncio.create_task(shared_mesh.get(early.id, wait_s=WAIT_S)) for _ in range(3)]
    release.touch()
    for done in await asyncio.gather(*waiting):
        assert done.status == Invocation.COMPLETED
        assert to_python(done.result) == "released"
        assert done.attempt == 1


async def test_a_wait_ends_before_the_callers_deadline(shared_mesh: Mesh) -> None:
    name = f"hold-{new_uuid()}"
    await shared_mesh.create(name, HOLD)
    release = shared_mesh.directory / name
    request = InvokeRequest(function_id=name, payload=to_value(str(release)))
    request.wait.FromSeconds(600)
    early = await shared_mesh.invocations.Invoke(request, timeout=3)
    assert early.status in (Invocation.PENDING, Invocation.RUNNING)
    release.touch()
    assert (await shared_mesh.get(early.id, wait_s=WAIT_S)).status == Invocation.COMPLETED


FAILING = {
    "raised": (
        {"code": "def handler(p, c):\n    raise LookupError('nothing there')\n"},
        (Invocation.FAILED, Invocation.FUNCTION_ERROR, "LookupError", "nothing there", 0),
    ),
    "syntax": (
        {"code": "def handler(p, c):\n    return (\n", "handler": "main.handler"},
        (Invocation.FAILED, Invocation.FUNCTION_ERROR, "SyntaxError", "was never closed", 0),
    ),
    "exit": (
        {"code": "import sys\ndef handler(p, c):\n    sys.exit(9)\n"},
        (Invocation.FAILED, Invocation.FUNCTION_CRASHED, "", "9", 9),
    ),
    "timeout": (
        {"code": "def handler(p, c):\n    while True: pass\n", "timeout_s": 1},
        (Invocation.TIMED_OUT, Invocation.TIMEOUT, "", "1 s", 0),
    ),
    "no JSON": (
        {"code": "def handler(p, c):\n    return {1, 2}\n"},
        (Invocation.FAILED, Invocation.BAD_OUTPUT, "TypeError", "not JSON", 0),
    ),
    "too large": (
        {"code": "def handler(p, c):\n    return 'x' * (64 << 20)\n", "memory_mb": 512},
        (Invocation.FAILED, Invocation.OUTPUT_TOO_LARGE, "", "67108864", 0),
    ),
    "program": (
        {"code": "import sys\nprint('half')\nsys.exit(3)\n", "handler": "main"},
        (Invocation.FAILED, Invocation.FUNCTION_CRASHED, "", "3", 3),
    ),
}


@pytest.mark.parametrize(("fields", "expected"), FAILING.values(), ids=FAILING)
async def test_a_failing_function_is_a_good_answer(
    shared_mesh: Mesh, fields: dict, expected: tuple
) -> None:
    name = f"failing-{new_uuid()}"
    values = dict(fields)
    if timeout_s := values.pop("timeout_s", 0):
        values["timeout"] = timedelta(seconds=timeout_s)
    await shared_mesh.create(name, **values)
    done = await shared_mesh.invoke(name, wait_s=WAIT_S)
    status, code, error_type, part, exit_code = expected
    assert (done.status, done.error.code) == (status, code), done.error
    assert (done.error.type, done.error.exit_code) == (error_type, exit_code)
    assert part in done.error.message
    assert not done.HasField("result")
    assert done.attempt == 1
    assert done.metrics.HasField("run")


OTHER_LANGUAGES = {
    "node": ("exports.handler = async (payload) => payload.map((x) => x * 2);\n", "main.handler"),
    "go": (
        'package main\n\nimport (\n\t"context"\n\t"encoding/json"\n)\n\n'
        "func Handler(ctx context.Context, payload json.RawMessage) (any, error) {\n"
        "\tvar numbers []int\n\tif err := json.Unmarshal(payload, &numbers); err != nil {\n"
        "\t\treturn nil, err\n\t}\n\tfor i := range numbers {\n\t\tnumbers[i] *= 2\n\t}\n"
        "\treturn numbers, nil\n}\n",
        "main.Handler",
    ),
}


@pytest.mark.parametrize("runtime", OTHER_LANGUAGES)
async def test_the_other_languages(shared_mesh: Mesh, runtime: str) -> None:
    code, handler = OTHER_LANGUAGES[runtime]
    name = f"{runtime}-{new_uuid()}"
    made = await shared_mesh.create(name, code, runtime=runtime)
    assert made.handler == handler
    done = await shared_mesh.invoke(name, [1, 2, 3], wait_s=200)
    assert (done.status, to_python(done.result)) == (Invocation.COMPLETED, [2, 4, 6]), done.error


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


async def test_the_largest_and_deepest_payloads_are_taken(shared_mesh: Mesh, echo: str) -> None:
    text = "x" * (LIMIT - 2)  # the quotes count
    done = await shared_mesh.invoke(echo, text, wait_s=WAIT_S)
    # The result is as large, so it is just within its limit too.
    assert to_python(done.result) == text
    done = await shared_mesh.invoke(echo, nested(32), wait_s=WAIT_S)
    assert to_python(done.result) == nested(32)


BAD = {
    "no function": ({"function_id": ""}, InvalidField, ["function_id"]),
    "a long name": ({"function_id": "x" * 129}, InvalidField, ["function_id"]),
    "an unknown name": ({"function_id": "nobody"}, FunctionNotFound, []),
    "an unknown id": ({"function_id": show("func-", new_uuid())}, FunctionNotFound, []),
    "a broken id": ({"function_id": "func-1"}, FunctionNotFound, []),
    "an unknown version": ({"function_version": 2}, VersionNotFound, []),
    "a negative version": ({"function_version": -1}, InvalidField, ["function_version"]),
    "a label without a name": ({"labels": {"": "x"}}, InvalidField, ['labels[""]']),
    "a label with a NUL": ({"labels": {"a": "\0"}}, InvalidField, ['labels["a"]']),
    "a long label": ({"labels": {"a": "x" * 257}}, InvalidField, ['labels["a"]']),
    "many labels": (
        {"labels": {f"l{number}": "" for number in range(65)}},
        InvalidField,
        ["labels"],
    ),
    "a negative wait": ({"wait": {"seconds": -1}}, InvalidField, ["wait"]),
    "an endless wait": ({"wait": {"seconds": 901}}, InvalidField, ["wait"]),
    "NaN": ({"payload": {"number_value": float("nan")}}, InvalidPayload, ["payload"]),
    "infinity": ({"payload": {"number_value": float("inf")}}, InvalidPayload, ["payload"]),
}


@pytest.mark.parametrize(("fields", "error", "named"), BAD.values(), ids=BAD)
async def test_bad_input_is_refused_by_name_and_nothing_is_written(
    shared_mesh: Mesh, echo: str, fields: dict, error: type, named: list[str]
) -> None:
    def count() -> int:
        return shared_mesh.rows("SELECT count(*) AS n FROM invocations")[0]["n"]

    before = count()
    request = InvokeRequest(**{"function_id": echo, **fields})
    found = await refused(shared_mesh.invocations.Invoke(request), error, *named)
    assert found.message
    assert count() == before


async def test_a_payload_too_deep_for_a_function_is_refused(shared_mesh: Mesh, echo: str) -> None:
    request = InvokeRequest(function_id=echo)
    inner = request.payload
    for _ in range(33):
        inner = inner.list_value.values.add()
    inner.number_value = 1
    found = await refused(shared_mesh.invocations.Invoke(request), InvalidPayload, "payload")
    assert "32" in found.message


async def test_a_depth_bomb_harms_nobody(shared_mesh: Mesh, echo: str) -> None:
    # A message this deep cannot be built with protobuf's own classes; on the wire it can.
    value = b"\x11" + bytes(8)
    for _ in range(10_000):
        listed = b"\x0a" + _varint(len(value)) + value
        value = b"\x32" + _varint(len(listed)) + listed
    name = echo.encode()
    data = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(len(value)) + value
    call = shared_mesh.channel("invocations").unary_unary("/faas.v1.InvocationService/Invoke")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(data)
    assert (await shared_mesh.invoke(echo, 1, wait_s=WAIT_S)).status == Invocation.COMPLETED


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


NO_INVOCATIONS = {
    "unknown": (show(INVOCATION, new_uuid()), InvocationNotFound, []),
    "empty": ("", InvalidField, ["invocation_id"]),
    "another kind": (show("func-", new_uuid()), InvalidField, ["invocation_id"]),
    "upper case": (show(INVOCATION, new_uuid()).upper(), InvalidField, ["invocation_id"]),
    "a quote": ("inv-' OR 1=1 --", InvalidField, ["invocation_id"]),
}


@pytest.mark.parametrize(
    ("invocation_id", "error", "named"), NO_INVOCATIONS.values(), ids=NO_INVOCATIONS
)
async def test_an_invocation_that_is_not_there(
    shared_mesh: Mesh, invocation_id: str, error: type, named: list[str]
) -> None:
    request = GetInvocationRequest(invocation_id=invocation_id)
    request.wait.FromSeconds(30)
    await refused(shared_mesh.invocations.GetInvocation(request, timeout=60), error, *named)


async def test_a_deleted_functions_records_stay_and_it_takes_no_more(
    shared_mesh: Mesh, echo: str
) -> None:
    done = await shared_mesh.invoke(echo, 1, wait_s=WAIT_S)
    await shared_mesh.functions.DeleteFunction(DeleteFunctionRequest(function_id=echo))
    await refused(shared_mesh.invocations.Invoke(InvokeRequest(function_id=echo)), FunctionNotFound)
    assert await shared_mesh.get(done.id) == done


async def test_a_change_is_in_force_for_the_next_call(shared_mesh: Mesh, echo: str) -> None:
    assert to_python((await shared_mesh.invoke(echo, "old", wait_s=WAIT_S)).result) == "old"
    code = ECHO.replace("return payload", "return 'new'")
    await shared_mesh.functions.UpdateFunction(UpdateFunctionRequest(function_id=echo, code=code))
    done = await shared_mesh.invoke(echo, "old", wait_s=WAIT_S)
    assert (done.function_version, to_python(done.result)) == (2, "new")
    done = await shared_mesh.invoke(echo, "old", wait_s=WAIT_S, function_version=1)
    assert (done.function_version, to_python(done.result)) == (1, "old")


async def test_many_at_once_start_once_each(shared_mesh: Mesh, echo: str) -> None:
    calls = [shared_mesh.invoke(echo, number, wait_s=WAIT_S) for number in range(40)]
    done = await asyncio.gather(*calls)
    assert [(one.status, one.attempt) for one in done] == [(Invocation.COMPLETED, 1)] * 40
    assert [to_python(one.result) for one in done] == list(range(40))
