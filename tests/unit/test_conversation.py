"""The worker's side of the conversation, against shims that say anything."""

import asyncio
import json
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.worker.conversation import Answer, Conversation, Listener, NoShim, crashed
from services.worker.frames import (
    ConnectionEnded,
    Frame,
    connect_frames,
    read_frame,
    write_frame,
)
from services.worker.runtime import Assignment, FunctionSpec, OutputLimits
from tests.mesh import eventually

LIMITS = OutputLimits(result_bytes=1000)
Shim = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def assignment(timeout_s: float = 30) -> Assignment:
    spec = FunctionSpec(
        function_id="func-1",
        version=3,
        runtime="python",
        handler="main.handler",
        memory_mb=128,
        cpus=1,
        env={"KEY": "value"},
        code_dir=Path("/nowhere"),
        build_dir=Path("/nowhere"),
    )
    return Assignment(
        invocation_id="inv-1",
        attempt=2,
        spec=spec,
        function_name="tried",
        payload=b'{"a":1}',
        payload_type="application/json",
        timeout_s=timeout_s,
        context={"traceparent": "00-a-b-01"},
    )


@asynccontextmanager
async def conversing(shim: Shim) -> AsyncIterator[Conversation]:
    """A conversation whose other side is `shim`."""
    near, far = socket.socketpair()
    ours = await connect_frames(near)
    theirs = await asyncio.open_unix_connection(sock=far)
    speaking = asyncio.create_task(shim(*theirs))
    conversation = Conversation(*ours, LIMITS)
    try:
        yield conversation
    finally:
        conversation.close()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        for _, writer in (ours, theirs):
            writer.close()


def encoded(frame: Frame) -> bytes:
    """As a shim may write it: escapes say even what UTF-8 cannot."""
    header = json.dumps(frame.header).encode()
    return struct.pack(">II", len(header), len(frame.body)) + header + frame.body


async def answered(*answers: bytes | Frame, timeout_s: float = 30) -> Answer:
    """What `run` makes of a shim that answers load and invoke with these, then waits."""

    async def shim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_frame(reader)
            writer.write(encoded(answer) if isinstance(answer, Frame) else answer)
        await asyncio.Event().wait()

    async with conversing(shim) as conversation:
        return await conversation.run(assignment(timeout_s))


LOADED = Frame({"type": "loaded"})


def result(body: bytes, **header: object) -> Frame:
    return Frame({"type": "result", **header}, body)


async def test_a_result_with_what_it_cost() -> None:
    metrics = {"cpu_time_s": 0.5, "peak_memory_bytes": 1024}
    answer = await answered(LOADED, result(b'{"b":[1]}', metrics=metrics))
    assert answer.failure is None
    assert (answer.result, answer.cpu_time_s, answer.peak_memory_bytes) == (b'{"b":[1]}', 0.5, 1024)


async def test_an_answer_to_another_invocation_is_none() -> None:
    answer = await answered(LOADED, result(b"1", invocation_id="inv-1"))
    assert (answer.failure, answer.result) == (None, b"1")
    answer = await answered(LOADED, result(b"1", invocation_id="inv-0"))
    assert answer.failure is not None
    assert answer.failure.code == Invocation.BAD_OUTPUT


async def test_what_says_more_than_was_asked_is_not_used_again() -> None:
    more = asyncio.Event()

    async def shim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (LOADED, result(b"1")):
            await read_frame(reader)
            await write_frame(writer, answer)
        await more.wait()
        await write_frame(writer, result(b"2"))
        await asyncio.Event().wait()

    async with conversing(shim) as conversation:
        assert (await conversation.run(assignment())).result == b"1"
        assert conversation.intact
        more.set()

        async def heard() -> bool:
            return not conversation.silent

        await eventually("it has spoken", heard)
        assert not conversation.intact


async def test_what_the_shim_is_told() -> None:
    heard: list[Frame] = []

    async def shim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (LOADED, result(b"null")):
            heard.append(await read_frame(reader))
            await write_frame(writer, answer)

    async with conversing(shim) as conversation:
        await conversation.run(assignment())
    load, invoke = heard
    assert (
        load.header.items()
        >= {
            "type": "load",
            "handler": "main.handler",
            "env": {"KEY": "value"},
            "function_id": "func-1",
            "function_name": "tried",
            "function_version": 3,
        }.items()
    )
    assert invoke.body == b'{"a":1}'
    assert (
        invoke.header.items()
        >= {
            "type": "invoke",
            "invocation_id": "inv-1",
            "attempt": 2,
            "timeout_s": 30,
            "traceparent": "00-a-b-01",
        }.items()
    )


def error(code: object, **fields: object) -> Frame:
    return Frame({"type": "error", "code": code, **fields})


async def test_the_functions_own_error() -> None:
    said = error("FUNCTION_ERROR", error_type="ValueError", message="no", stack="main.py, line 1")
    for answers in ([said], [LOADED, said]):
        failure = (await answered(*answers)).failure
        assert failure is not None
        assert (failure.code, failure.type) == (Invocation.FUNCTION_ERROR, "ValueError")
        assert (failure.message, failure.stack) == ("no", "main.py, line 1")


async def test_what_an_error_says_is_taken_for_what_it_is() -> None:
    said = error(
        "FUNCTION_CRASHED",
        error_type=7,
        message="NUL \0 and \ud800",
        stack=["x"],
        exit_code="137",
        metrics={"cpu_time_s": float("nan"), "peak_memory_bytes": -1},
    )
    answer = await answered(LOADED, said)
    assert answer.failure is not None
    assert answer.failure.code == Invocation.FUNCTION_CRASHED
    assert (answer.failure.type, answer.failure.stack, answer.failure.exit_code) == ("", "", 0)
    assert answer.failure.message.encode()
    assert "\0" not in answer.failure.message
    assert (answer.cpu_time_s, answer.peak_memory_bytes) == (None, None)
    long = error("FUNCTION_ERROR", message="x" * 60_000)
    answer = await answered(LOADED, long)
    assert answer.failure is not None
    assert len(answer.failure.message) == 16 * 1024


BAD_OUTPUT = {
    "no JSON": [LOADED, result(b"{")],
    "nothing": [LOADED, result(b"")],
    "NaN": [LOADED, result(b"NaN")],
    "UTF-16": [LOADED, result("1".encode("utf-16"))],
    "not UTF-8": [LOADED, result(b'"\xff"')],
    "a lone surrogate": [LOADED, result(b'"\\ud800"')],
    "too deep": [LOADED, result(b"[" * 33 + b"]" * 33)],
    "far too deep": [LOADED, result(b"[" * 900)],
    "a number beyond a double": [LOADED, result(b"1e999")],
    "result for loaded": [result(b"1")],
    "loaded twice": [LOADED, LOADED],
    "hello again": [Frame({"type": "hello", "protocol": 1})],
    "an unknown type": [LOADED, Frame({"type": "granted"})],
    "an error of the platform's": [LOADED, error("WORKER_LOST")],
    "an error of no code": [LOADED, error(None)],
    "no frame": [LOADED, b"printed to the wrong descriptor\n"],
    "a header that is too long": [LOADED, struct.pack(">II", 2**31, 0)],
}


@pytest.mark.parametrize("answers", BAD_OUTPUT.values(), ids=BAD_OUTPUT)
async def test_bad_output(answers: list[bytes | Frame]) -> None:
    answer = await answered(*answers)
    assert answer.failure is not None
    assert answer.failure.code == Invocation.BAD_OUTPUT
    assert answer.failure.message
    assert answer.result == b""


@pytest.mark.parametrize("size", [1001, 100_000])
async def test_a_result_that_is_too_large(size: int) -> None:
    answer = await answered(LOADED, result(json.dumps("x" * (size - 2)).encode()))
    assert answer.failure is not None
    assert answer.failure.code == Invocation.OUTPUT_TOO_LARGE
    assert (await answered(LOADED, result(json.dumps("x" * 998).encode()))).failure is None


@pytest.mark.parametrize("answers", [[], [LOADED]], ids=["loading", "running"])
async def test_a_timeout_counts_from_the_load(answers: list[Frame]) -> None:
    answer = await answered(*answers, timeout_s=0.05)
    assert answer.failure is not None
    assert answer.failure.code == Invocation.TIMEOUT


@pytest.mark.parametrize("after", [b"", b"\x00\x00\x00\x10", b"\x00\x00\x00\x02\x00\x00\x00\x00{"])
async def test_the_end_of_the_connection_is_the_end_of_the_process(after: bytes) -> None:
    async def shim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(after)
        writer.close()

    async with conversing(shim) as conversation:
        with pytest.raises(ConnectionEnded):
            await conversation.run(assignment())


GREETINGS = {
    "no hello": Frame({"type": "loaded"}),
    "another protocol": Frame({"type": "hello", "protocol": 2}),
    "no protocol": Frame({"type": "hello"}),
    "with a body": Frame({"type": "hello", "protocol": 1}, b"x"),
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
async def test_what_does_not_speak_the_protocol_is_no_shim(greeting: Frame) -> None:
    async def shim(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await write_frame(writer, greeting)

    async with conversing(shim) as conversation:
        with pytest.raises(NoShim):
            await conversation.greeting()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory) / "s"


async def test_only_the_first_may_connect(socket_path: Path) -> None:
    listener = Listener(socket_path)
    accepting = asyncio.create_task(listener.accept(LIMITS))
    _, writer = await asyncio.open_unix_connection(socket_path)
    await write_frame(writer, Frame({"type": "hello", "protocol": 1}))
    conversation = await accepting
    await conversation.greeting()
    assert not socket_path.exists()
    with pytest.raises(OSError, match="No such file"):
        await asyncio.open_unix_connection(socket_path)
    conversation.close()
    writer.close()


@pytest.mark.parametrize(
    ("return_code", "exit_code", "part"), [(0, 0, "code 0"), (7, 7, "code 7"), (-9, 137, "9")]
)
def test_a_crash_says_how(return_code: int, exit_code: int, part: str) -> None:
    failure = crashed(return_code)
    assert (failure.code, failure.exit_code) == (Invocation.FUNCTION_CRASHED, exit_code)
    assert part in failure.message
