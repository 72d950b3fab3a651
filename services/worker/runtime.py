"""What runs functions: the interface that the process and the Docker runtime share.

A failure of the user's function is a `Verdict`, whatever it did; only trouble of
the platform is an exception (`RuntimeUnavailable`).
"""

import enum
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from faas.v1.invocation_pb2 import Invocation
from services.worker.holdings import Holdings

# Beyond it execve refuses a variable (128 KiB with the name and the NUL).
MAX_VARIABLE_BYTES = 120 * 1024
COMPILED = "go"
"""The runtime whose functions are built before they can run."""
INLINE_BYTES = 1024 * 1024
"""Payloads and results up to this size are in memory and in messages; larger ones in files."""


class RuntimeUnavailable(Exception):
    """The platform cannot run this now: image missing, engine away, no space.

    Never the function's fault.
    """


class Stream(enum.Enum):
    """Which descriptor a line was printed to."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True)
class Line:
    """One line of a function's output, without its newline; at most 64 KiB of text."""

    time: datetime
    stream: Stream
    text: str


@dataclass(frozen=True)
class FileContent:
    """A payload or a result of more than INLINE_BYTES, in a file of the worker's."""

    file: Path
    size_bytes: int
    sha256: str
    is_text: bool = False
    """Whether it is UTF-8."""


@dataclass(frozen=True)
class FunctionSpec:
    """One immutable version of a function, with its code on this machine."""

    function_id: str
    version: int
    runtime: str
    handler: str
    memory_mb: int
    cpus: float
    env: Mapping[str, str]
    code_dir: Path
    """Unpacked, read-only: `main.py|js|go` and what came with it."""
    build_dir: Path
    """Beside it: what was built of it."""
    one_shot: bool | None = None
    """Whether each invocation gets a fresh sandbox. None: as the worker is set."""

    @property
    def is_compiled(self) -> bool:
        """Whether it has to be built."""
        return self.runtime == COMPILED

    @property
    def program_mode(self) -> bool:
        """The string alone decides: no dot, and the file is run as a program."""
        return "." not in self.handler


@dataclass(frozen=True)
class Assignment:
    """One granted start: what to run, with what, how long."""

    invocation_id: str
    attempt: int
    spec: FunctionSpec
    function_name: str
    payload: bytes
    payload_type: str
    timeout_s: float
    context: Mapping[str, str] = field(default_factory=dict)
    """More for the function's context, such as `traceparent`."""
    large_payload: FileContent | None = None
    """Instead of `payload`."""
    large_result_file: Path | None = None
    """Where a result of more than INLINE_BYTES goes; its owner removes it. None: in memory."""

    @property
    def payload_variable(self) -> str | None:
        """What `FUNCTION_PAYLOAD` holds; None where no variable could."""
        if self.large_payload is not None:
            return None
        if len(self.payload) > MAX_VARIABLE_BYTES or b"\0" in self.payload:
            return None
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return None

    def write_payload(self, path: Path) -> None:
        """Have the payload at `path`. Raises OSError."""
        if self.large_payload is None:
            path.write_bytes(self.payload)
            return
        path.unlink(missing_ok=True)
        link_or_copy(self.large_payload.file, path)


@dataclass(frozen=True)
class FunctionFailure:
    """Why a function did not complete, as the record's error has it."""

    code: Invocation.ErrorCode.ValueType
    message: str
    type: str = ""
    stack: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Verdict:
    """How one execution ended. `failure` is None exactly if it completed."""

    failure: FunctionFailure | None = None
    result: bytes = b""
    large_result: FileContent | None = None
    """Instead of `result`."""
    result_type: str = "application/json"
    startup_s: float = 0.0
    """From `execute` to handing it to the function's code."""
    run_s: float = 0.0
    """In the function's hands, import included."""
    load_s: float | None = None
    """The part of it that was the import; None where the sandbox had done it before."""
    cpu_time_s: float | None = None
    peak_memory_bytes: int | None = None
    image: str = ""
    """The image's digest, or `process`."""
    logs_truncated: bool = False
    start_kind: Invocation.StartKind.ValueType = Invocation.COLD


@dataclass(frozen=True)
class OutputLimits:
    """How much of a function's output is kept."""

    result_bytes: int = 1024 * 1024
    log_bytes: int = 1024 * 1024
    """Per invocation; what comes beyond is read and dropped."""
    kill_bytes: int = 64 * 1024 * 1024
    """Printed more than this: killed, as FUNCTION_CRASHED."""


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Have a file at `target` too. Raises OSError."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        # Another file system, or a file that is not this user's.
        shutil.copy(source, target)


class Runtime(Protocol):
    """Runs functions in sandboxes on one host."""

    name: str
    """`process` or `docker`."""
    keeps_warm: bool
    """Whether it keeps sandboxes ready, once told to by `keep`."""

    async def start(self) -> None:
        """Check that it can run, and remove what dead workers of this stack left.

        Raises RuntimeUnavailable where it cannot run at all.
        """

    def images(self) -> Mapping[str, str]:
        """The runtimes that it can run now, each with its image's digest or `process`."""

    async def target(self) -> str:
        """What a binary that is built here fits, and any that fits this runs here.

        Raises RuntimeUnavailable where nothing can be built.
        """

    async def build(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Compile one version into its build directory, within limits of time and memory.

        A compile error is the function's: it is returned. Raises RuntimeUnavailable.
        """

    async def prepare(self, spec: FunctionSpec) -> None:
        """Have what versions of this kind need besides, outside the function's timeout.

        Raises RuntimeUnavailable.
        """

    def keep(self, wanted: Sequence[tuple[FunctionSpec, int]]) -> None:
        """Have so many sandboxes of these versions ready from now on, and of no others.

        Each was prepared. It is begun here, and done in the background.
        """

    def holdings(self) -> Holdings | None:
        """The sandboxes that it keeps for further calls; None where it keeps none."""

    async def execute(self, assignment: Assignment, on_line: Callable[[Line], None]) -> Verdict:
        """Run one assignment in a sandbox of its own and leave nothing behind.

        `on_line` is called for each printed line, in order, while it runs.
        Cancelling this kills the function: when it has returned or raised, no
        process, container or directory of it is left. Raises RuntimeUnavailable.
        """

    async def close(self) -> None:
        """End; nothing of this worker is left behind."""
