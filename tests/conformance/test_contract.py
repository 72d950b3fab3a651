"""Every language on every runtime keeps `runtimes/CONTRACT.md`."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.worker.runtime import Line, Stream
from tests.conformance import functions
from tests.conformance.conftest import Bench

LANGUAGES = ["python", "node", "go"]
PAYLOADS = {
    "null": None,
    "integer": 2**53,
    "unicode": "grüße, 世界 \U0001f680 \u0000",
    "empty": {},
    "nested": {"a": [1, 2.5, True, None, {"b": "c"}]},
    "large": "x" * (1024 * 1024 - 2),
}

pytestmark = pytest.mark.parametrize("language", LANGUAGES)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_a_payload_comes_back(bench: Bench, language: str, payload: object) -> None:
    document = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    ran = await bench.run(bench.spec(language, functions.ECHO[language]), document)
    assert ran.verdict.failure is None
    assert json.loads(ran.verdict.result) == payload
    assert ran.verdict.cpu_time_s is not None
    assert ran.verdict.peak_memory_bytes


@pytest.mark.applies(languages=["go"], reason="only Go has modules that say which Go")
async def test_a_module_may_ask_for_an_older_go(bench: Bench, language: str) -> None:
    files = {"main.go": functions.ECHO["go"], "go.mod": "module shop\n\ngo 1.18\n"}
    ran = await bench.run(bench.spec("go", files), b"3")
    assert (ran.verdict.failure, ran.verdict.result) == (None, b"3")


@pytest.mark.applies(languages=functions.ASYNC, reason="Go has no async functions")
async def test_async_handlers(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, functions.ASYNC[language]), b"5")
    assert (ran.verdict.failure, ran.verdict.result) == (None, b"5")


async def test_a_raised_error(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, functions.RAISE[language]))
    failure = ran.verdict.failure
    error_type, parts = functions.RAISED[language]
    assert failure is not None
    assert (failure.code, failure.type) == (Invocation.FUNCTION_ERROR, error_type)
    assert failure.message == "lost"
    assert all(part in failure.stack for part in parts)
    assert "shim" not in failure.stack
    assert "zz_faas" not in failure.stack
    assert str(bench.directory) not in failure.stack


@pytest.mark.parametrize("character", ["x", "\u4e16", "\U0001f680", "\u0001", "<"])
async def test_a_long_error_is_cut_and_stays_one(
    bench: Bench, language: str, character: str
) -> None:
    payload = json.dumps(character).encode()
    ran = await bench.run(bench.spec(language, functions.LONG_ERROR[language]), payload)
    failure = ran.verdict.failure
    assert failure is not None
    assert failure.code == Invocation.FUNCTION_ERROR, failure
    assert failure.message.startswith(character * 1000)


FAILURES = {
    "broken": (functions.BROKEN, Invocation.FUNCTION_ERROR, 0),
    "missing": (functions.MISSING, Invocation.FUNCTION_ERROR, 0),
    "not JSON": (functions.NOT_JSON, Invocation.BAD_OUTPUT, 0),
    "huge": (functions.HUGE, Invocation.OUTPUT_TOO_LARGE, 0),
    "huge bytes": (functions.HUGE_RAW, Invocation.OUTPUT_TOO_LARGE, 0),
    "no type": (functions.NO_TYPE, Invocation.BAD_OUTPUT, 0),
    "exit": (functions.EXIT, Invocation.FUNCTION_CRASHED, 7),
    "signal": (functions.SIGNAL, Invocation.FUNCTION_CRASHED, 137),
    "flood": (functions.FLOOD, Invocation.FUNCTION_CRASHED, 137),
}


@pytest.mark.parametrize(("sources", "code", "exit_code"), FAILURES.values(), ids=FAILURES)
async def test_a_failure(
    bench: Bench, language: str, sources: dict[str, str], code: int, exit_code: int
) -> None:
    ran = await bench.run(bench.spec(language, sources[language]))
    failure = ran.verdict.failure
    assert failure is not None
    assert (failure.code, failure.exit_code) == (code, exit_code), failure
    assert failure.message
    assert str(bench.directory) not in failure.message + failure.stack


ENDLESS = {
    "sleep": (functions.SLEEP, None),
    "busy": (functions.BUSY, None),
    "import": (functions.HANG_AT_IMPORT, None),
    "program": (functions.PROGRAM_SLEEP, "main"),
}


@pytest.mark.parametrize(("sources", "handler"), ENDLESS.values(), ids=ENDLESS)
async def test_the_timeout(
    bench: Bench, language: str, sources: dict[str, str], handler: str | None
) -> None:
    ran = await bench.run(bench.spec(language, sources[language], handler), timeout_s=1.5)
    assert ran.verdict.failure is not None
    assert ran.verdict.failure.code == Invocation.TIMEOUT


async def test_logs_in_order(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, functions.PRINT[language]))
    assert ran.verdict.failure is None
    assert ran.verdict.result == b"null"
    assert [x.text for x in ran.lines if x.stream is Stream.STDOUT] == ["one", "two"]
    assert [x.text for x in ran.lines if x.stream is Stream.STDERR] == ["err"]


async def test_the_environment(
    bench: Bench, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "leaked")
    spec = bench.spec(language, functions.VARIABLES[language], env={"KEY": "value"})
    ran = await bench.run(spec)
    assert ran.verdict.failure is None
    assert json.loads(ran.verdict.result) == ["value", "2", "tried", None, "00-a-b-01"]


PROGRAMS = {
    "JSON": (functions.PROGRAM, b'{"a":1}', {"a": 1}, ["log"]),
    "text": (functions.PROGRAM_TEXT, b"null", "not json", []),
}


@pytest.mark.parametrize(("sources", "payload", "result", "lines"), PROGRAMS.values(), ids=PROGRAMS)
async def test_programs(
    bench: Bench,
    language: str,
    sources: dict[str, str],
    payload: bytes,
    result: object,
    lines: list[str],
) -> None:
    ran = await bench.run(bench.spec(language, sources[language], "main"), payload)
    assert ran.verdict.failure is None
    assert json.loads(ran.verdict.result) == result
    assert ran.texts == lines


BYTES = bytes(range(256)) * 100


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain", "a/b; c=d"])
async def test_bytes_come_and_go(bench: Bench, language: str, content_type: str) -> None:
    spec = bench.spec(language, functions.RAW[language])
    ran = await bench.run(spec, BYTES, payload_type=content_type)
    assert ran.verdict.failure is None
    assert ran.verdict.result == BYTES
    assert ran.verdict.result_type == "application/octet-stream"


async def test_a_result_of_another_type(bench: Bench, language: str) -> None:
    spec = bench.spec(language, functions.TYPED[language])
    ran = await bench.run(spec, "grüße".encode(), payload_type="text/plain")
    assert ran.verdict.failure is None
    assert ran.verdict.result == "grüße".encode()
    assert ran.verdict.result_type == "text/x-TEXT.PLAIN"


async def test_a_result_of_another_json_type(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, functions.PROBLEM[language]))
    assert ran.verdict.failure is None
    assert ran.verdict.result_type == "application/problem+json"
    number = json.loads(ran.verdict.result)["n"]
    assert number == (1 if language == "node" else 2**70)


async def test_a_program_finds_bytes_in_the_file(bench: Bench, language: str) -> None:
    spec = bench.spec(language, functions.PROGRAM_FILE[language], "main")
    for payload, in_variable in ((BYTES, False), (b"a\0b", False), (b"text", True)):
        ran = await bench.run(spec, payload, payload_type="text/plain")
        assert ran.verdict.failure is None
        assert json.loads(ran.verdict.result) == f"{in_variable}\n{payload.hex()}"


async def test_cancelling_kills(bench: Bench, language: str) -> None:
    spec = bench.spec(language, functions.SLEEP[language])
    assert await bench.built(spec) is None
    printed = asyncio.Event()

    def on_line(_: Line) -> None:
        printed.set()

    running = asyncio.create_task(bench.runtime.execute(bench.assignment(spec), on_line))
    async with asyncio.timeout(60):
        await printed.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not running_in(spec.code_dir)


PROGRAM_FAILURES = {
    "raised": (functions.PROGRAM_RAISE, {"python": 1, "node": 1, "go": 2}),
    "exit": (functions.PROGRAM_EXIT, dict.fromkeys(LANGUAGES, 3)),
}


@pytest.mark.parametrize(("sources", "exit_codes"), PROGRAM_FAILURES.values(), ids=PROGRAM_FAILURES)
async def test_a_program_that_fails(
    bench: Bench, language: str, sources: dict[str, str], exit_codes: dict[str, int]
) -> None:
    ran = await bench.run(bench.spec(language, sources[language], "main"))
    failure = ran.verdict.failure
    assert failure is not None
    assert (failure.code, failure.exit_code) == (
        Invocation.FUNCTION_CRASHED,
        exit_codes[language],
    )
    # What a language's runtime says of it is on stderr.
    assert sources is functions.PROGRAM_EXIT or any("lost" in text for text in ran.texts)


HOGS = {
    "handler": (functions.MEMORY, None),
    "program": (functions.PROGRAM_MEMORY, "main"),
    "handler-heap": (functions.HEAP, None),
    "program-heap": (functions.PROGRAM_HEAP, "main"),
}


@pytest.mark.applies(runtimes=["docker", "warm"], reason="processes have no bound of memory")
@pytest.mark.parametrize(("sources", "handler"), HOGS.values(), ids=HOGS)
async def test_out_of_memory(
    bench: Bench, language: str, sources: dict[str, str], handler: str | None
) -> None:
    spec = bench.spec(language, sources[language], handler, memory_mb=128)
    ran = await bench.run(spec)
    assert ran.verdict.failure is not None
    assert ran.verdict.failure.code == Invocation.OUT_OF_MEMORY, ran
    assert "128 MiB" in ran.verdict.failure.message
    assert ran.verdict.peak_memory_bytes == 128 * 1024 * 1024


def running_in(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd").startswith(str(directory)):
                    found.append(int(entry.name))
            except OSError:
                continue
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


async def test_memory_is_the_functions_own(bench: Bench, language: str) -> None:
    ballast = b"x" * (400 * 1024 * 1024)  # the worker's, which a child begins with
    ran = await bench.run(bench.spec(language, functions.ECHO[language]))
    assert ran.verdict.peak_memory_bytes is not None
    assert 0 < ran.verdict.peak_memory_bytes < len(ballast) / 2
