"""The worker's side of the conversation with a shim: `runtimes/CONTRACT.md`.

Nothing that the other side says is believed. What cannot be read is the function's
failure, as BAD_OUTPUT; only its silence before the hello is the platform's.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faas.json_values import NotJson, check, is_json
from faas.v1.invocation_pb2 import Invocation
from services.content_types import JSON, is_content_type
from services.worker.frames import (
    BodyTooLarge,
    BrokenFrame,
    Frame,
    FrameReader,
    NoRoom,
    connect_frames,
    read_frame,
    write_frame,
)
from services.worker.runtime import (
    INLINE_BYTES,
    Assignment,
    FileContent,
    FunctionFailure,
    OutputLimits,
    RuntimeUnavailable,
)

PROTOCOL = 1
SANDBOX_CODES = {
    "FUNCTION_ERROR": Invocation.FUNCTION_ERROR,
    "FUNCTION_CRASHED": Invocation.FUNCTION_CRASHED,
    "BAD_OUTPUT": Invocation.BAD_OUTPUT,
    "OUTPUT_TOO_LARGE": Invocation.OUTPUT_TOO_LARGE,
}
"""What a shim may say of its function. The other codes are the worker's to find."""

MAX_MESSAGE_CHARACTERS = 16 * 1024
MAX_TYPE_CHARACTERS = 256
_MAX_INT64 = 2**63 - 1


class NoShim(Exception):
    """What connected does not speak the protocol: the image is at fault."""


@dataclass(frozen=True)
class Answer:
    """What the function said. `failure` is None exactly if it has a result."""

    failure: FunctionFailure | None = None
    result: bytes = b""
    large_result: FileContent | None = None
    """Instead of `result`."""
    result_type: str = JSON
    cpu_time_s: float | None = None
    peak_memory_bytes: int | None = None
    left_processes: int = 0
    """Processes of the function that have outlived it."""
    load_s: float | None = None
    """What it took to load the code, by the worker's clock; None where it was loaded before."""


class Listener:
    """A sandbox's socket, until its shim has connected. Nobody else ever can."""

    def __init__(self, path: Path) -> None:
        """Listen on `path`, which the sandbox's user may connect to. Raises OSError."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(path))
            path.chmod(0o666)
            self._socket.listen(1)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    async def accept(self, limits: OutputLimits) -> "Conversation":
        """The conversation with what connects first; the socket is closed to all others."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        self.close()
        reader, writer = await connect_frames(connection)
        return Conversation(reader, writer, limits)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


class Conversation:
    """One connected shim: greet, load once, invoke as often as it stays intact; then close."""

    def __init__(
        self, reader: FrameReader, writer: asyncio.StreamWriter, limits: OutputLimits
    ) -> None:
        """Speak on these; take results within `limits`."""
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._loaded = False
        self._ended_well = False

    @property
    def silent(self) -> bool:
        """Whether nothing was said unasked: it would be taken for the next answer."""
        return self._reader.unread_bytes == 0

    @property
    def intact(self) -> bool:
        """Whether the last invocation ended as it should, and left nothing running."""
        return self._ended_well and self.silent

    async def greeting(self) -> None:
        """Wait until the interpreter is up. Raises NoShim and ConnectionEnded."""
        try:
            hello = await read_frame(self._reader, max_body_bytes=0)
        except BrokenFrame as error:
            raise NoShim(f"the shim sent {error}") from error
        if hello.type != "hello" or hello.header.get("protocol") != PROTOCOL:
            raise NoShim(f"the shim does not speak version {PROTOCOL} of the protocol")

    async def run(self, assignment: Assignment) -> Answer:
        """Invoke, and load before the first time, within the assignment's timeout.

        Raises ConnectionEnded and RuntimeUnavailable. After any failure but one of the
        function's own, the sandbox is spoilt.
        """
        deadline, began = time.time() + assignment.timeout_s, time.monotonic()
        self._ended_well = False
        load_s = None
        try:
            async with asyncio.timeout(assignment.timeout_s):
                if not self._loaded:
                    loaded = await self.load(assignment)
                    load_s = time.monotonic() - began
                    if loaded.failure:
                        return replace(loaded, load_s=load_s)
                    self._loaded = True
                answer = await self.invoke(assignment, deadline)
                own = (None, Invocation.FUNCTION_ERROR)
                code = answer.failure.code if answer.failure else None
                self._ended_well = code in own and answer.left_processes == 0
                return replace(answer, load_s=load_s)
        except TimeoutError:
            message = f"The function was still running after {assignment.timeout_s:g} s."
            if not self._loaded:
                load_s = time.monotonic() - began
            return Answer(FunctionFailure(Invocation.TIMEOUT, message), load_s=load_s)

    async def load(self, assignment: Assignment) -> Answer:
        """Have the function loaded: an answer without a failure says that it is."""
        spec = assignment.spec
        header = {
            "type": "load",
            "handler": spec.handler,
            "env": dict(spec.env),
            "function_id": spec.function_id,
            "function_name": assignment.function_name,
            "function_version": spec.version,
            "max_result_bytes": self._limits.result_bytes,
        }
        return await self._ask(Frame(header), "loaded")

    async def invoke(self, assignment: Assignment, deadline_unix_s: float) -> Answer:
        """Call it once; the answer has its result or its failure."""
        header = {
            **assignment.context,
            "type": "invoke",
            "invocation_id": assignment.invocation_id,
            "attempt": assignment.attempt,
            "timeout_s": assignment.timeout_s,
            "deadline_unix_s": deadline_unix_s,
            "payload_type": assignment.payload_type,
        }
        question = Frame(header, assignment.payload, assignment.large_payload)
        return await self._ask(
            question, "result", assignment.invocation_id, assignment.large_result_file
        )

    def close(self) -> None:
        """Nothing more is wanted of it: a shim that still runs ends itself."""
        self._writer.close()

    async def _ask(
        self,
        question: Frame,
        expected: str,
        invocation_id: str = "",
        large_file: Path | None = None,
    ) -> Answer:
        await write_frame(self._writer, question)
        most = self._limits.result_bytes
        if large_file is None:
            most = min(most, INLINE_BYTES)
        try:
            answer = await read_frame(self._reader, most, large_file)
        except NoRoom as error:
            raise RuntimeUnavailable(f"there is no room for the result: {error}") from error
        except BodyTooLarge:
            return Answer(_too_large(most))
        except BrokenFrame as error:
            return Answer(bad_output(f"The function's process sent {error}."))
        if answer.header.get("invocation_id", invocation_id) != invocation_id:
            return Answer(bad_output("The function's process answered another invocation."))
        if answer.type == "error":
            return _failed(answer.header)
        if answer.type != expected:
            return Answer(bad_output(f"The function's process sent no {expected}."))
        return _succeeded(answer) if expected == "result" else Answer()


def crashed(return_code: int) -> FunctionFailure:
    """Why a process ended without an answer, by its code as subprocess has it: -n is signal n."""
    if return_code < 0:
        exit_code, how = 128 - return_code, f"was killed by signal {-return_code}"
    else:
        exit_code, how = return_code, f"exited with code {return_code}"
    message = f"The function's process {how} without an answer."
    return FunctionFailure(Invocation.FUNCTION_CRASHED, message, exit_code=exit_code)


def flooded(kill_bytes: int) -> FunctionFailure:
    """Why a process was killed that printed without end."""
    message = f"The function printed more than {kill_bytes} bytes and was killed."
    return FunctionFailure(Invocation.FUNCTION_CRASHED, message, exit_code=137)


def _succeeded(frame: Frame) -> Answer:
    answer = replace(
        _answer(frame.header, None),
        result=frame.body,
        large_result=frame.large,
        result_type=frame.header.get("content_type", JSON),
    )
    if not isinstance(answer.result_type, str) or not is_content_type(answer.result_type):
        return _spoilt(answer, "The result's content type is none.")
    try:
        if is_json(answer.result_type) and frame.large is not None:
            # Too large to be read here: that is its shim's affair, which made it.
            if not frame.large.is_text:
                raise NotJson("it is not UTF-8")
        elif is_json(answer.result_type):
            check(frame.body)
    except NotJson as error:
        return _spoilt(answer, f"The result is not JSON: {error}.")
    return answer


def _spoilt(answer: Answer, message: str) -> Answer:
    failure = bad_output(message)
    return replace(answer, failure=failure, result=b"", large_result=None, result_type=JSON)


def _failed(header: Mapping[str, Any]) -> Answer:
    code = SANDBOX_CODES.get(str(header.get("code")))
    if code is None:
        return Answer(bad_output("The function's process sent an error of no known code."))
    exit_code = header.get("exit_code")
    failure = FunctionFailure(
        code,
        message=_text(header.get("message"), MAX_MESSAGE_CHARACTERS),
        type=_text(header.get("error_type"), MAX_TYPE_CHARACTERS),
        stack=_text(header.get("stack")),
        exit_code=exit_code if type(exit_code) is int and 0 <= exit_code <= 255 else 0,
    )
    return _answer(header, failure)


def _answer(header: Mapping[str, Any], failure: FunctionFailure | None) -> Answer:
    metrics = header.get("metrics")
    return Answer(
        failure,
        cpu_time_s=_cpu_time_s(metrics),
        peak_memory_bytes=_number(metrics, "peak_memory_bytes"),
        left_processes=_number(metrics, "left_processes") or 0,
    )


def _too_large(limit: int) -> FunctionFailure:
    message = f"The result is larger than {limit} bytes."
    return FunctionFailure(Invocation.OUTPUT_TOO_LARGE, message)


def bad_output(message: str) -> FunctionFailure:
    """What came from the function cannot be read."""
    return FunctionFailure(Invocation.BAD_OUTPUT, message)


def hung_up() -> FunctionFailure:
    """It lives, and has closed its connection with the worker."""
    return bad_output("The function's process closed its connection with the worker.")


def _text(value: Any, longest: int = 64 * 1024) -> str:
    """`value` as text that protobuf and PostgreSQL take: without lone surrogates and NUL."""
    if not isinstance(value, str):
        return ""
    text = value[:longest].encode("utf-8", "replace").decode()
    return text.replace("\0", "\ufffd")


def _cpu_time_s(metrics: Any) -> float | None:
    value = metrics.get("cpu_time_s") if isinstance(metrics, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Neither NaN nor infinity is within the bounds.
    return float(value) if 0 <= value < 1e9 else None


def _number(metrics: Any, name: str) -> int | None:
    value = metrics.get(name) if isinstance(metrics, dict) else None
    return value if type(value) is int and 0 <= value <= _MAX_INT64 else None
