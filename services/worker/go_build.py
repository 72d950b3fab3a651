"""Builds functions written in Go, on the machine or in a container.

Beside the user's files come the handler's side of the contract and one file that
binds it to the callable.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faas.v1.invocation_pb2 import Invocation
from services.worker.runtime import FunctionFailure, FunctionSpec, RuntimeUnavailable
from services.worker.sandbox_dirs import SandboxDirs

BUILD_S = 120.0
MAX_MESSAGE_CHARACTERS = 8 * 1024
BINARY = "handler"
_SHIM = ("zz_faas_frames.go", "zz_faas_handler.go")
_LAUNCHER = ("launcher.go", "zz_faas_frames.go")
_MODULE = re.compile(r"^\s*module\s+\"?([^\s\"]+)", re.MULTILINE)
_MAIN = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)
_CALLABLE = re.compile(r"[A-Za-z_]\w*\.([A-Za-z_]\w*)")

ENVIRONMENT: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "on",
    "GOENV": "off",
    "GOFLAGS": "-trimpath -buildvcs=false",
    "GONOSUMDB": "*",
    "GOPROXY": "off",
    "GOTELEMETRY": "off",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
"""Nothing is fetched: what a function needs is in its archive, in `vendor`."""


@dataclass(frozen=True)
class Build:
    """One run of the compiler, for whoever runs it."""

    source: Path
    """The working directory. The command's paths are relative to it, and stay in it."""
    command: Sequence[str]
    """Arguments of `go`."""


Compile = Callable[[Build, float], Awaitable[tuple[int, str]]]
"""Runs `go` on a build within so many seconds: its exit code, and what it printed.

Raises TimeoutError, with nothing left running; RuntimeUnavailable if it cannot run.
"""


class GoBuilder:
    """Fills build directories."""

    def __init__(self, compile_: Compile, sources: Path, dirs: SandboxDirs) -> None:
        """Compile by `compile_`; the shim is in `sources`, and scratch space in `dirs`."""
        self._compile = compile_
        self._sources = sources
        self._dirs = dirs
        self._target: str | None = None

    async def target(self) -> str:
        """What a binary that is built here fits: `linux/amd64 go1.26.1 shim-3f…`.

        The shim is compiled in, so another one is another target. Raises
        RuntimeUnavailable.
        """
        if self._target is None:
            async with self._dirs.sandbox("builds") as scratch:
                names = ["GOOS", "GOARCH", "GOVERSION"]
                code, output = await self._compile(Build(scratch.path, ["env", *names]), BUILD_S)
            words = output.split()
            if code != 0 or len(words) != len(names):
                raise RuntimeUnavailable(f"Go does not say what it compiles for: {output}")
            system, architecture, version = words
            shim = hashlib.sha256(_binding("main.Handler", "function", has_main=False).encode())
            for name in _SHIM:
                shim.update((self._sources / name).read_bytes())
            self._target = f"{system}/{architecture} {version} shim-{shim.hexdigest()[:16]}"
        return self._target

    async def build(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Have `spec.build_dir` hold the binary, or say what the compiler refused.

        Raises RuntimeUnavailable.
        """
        try:
            with _scratch(spec.build_dir.parent) as scratch:
                source = scratch / "source"
                await asyncio.to_thread(_lay_out, spec, source, self._sources)
                failure = await self._compiled(source)
                if failure is None:
                    spec.build_dir.mkdir(exist_ok=True)
                    (source / BINARY).replace(spec.build_dir / BINARY)
                return failure
        except OSError as error:
            raise RuntimeUnavailable(f"the function cannot be built: {error}") from error

    async def launcher(self, file: Path) -> None:
        """Have the launcher in `file`. Raises RuntimeUnavailable."""
        if await asyncio.to_thread(file.exists):
            return
        with _scratch(file.parent) as scratch:
            for name in _LAUNCHER:
                shutil.copyfile(self._sources / name, scratch / name)
            code, output = await self._compile(
                Build(scratch, ["build", "-o", "launcher", *_LAUNCHER]), BUILD_S
            )
            if code != 0:
                raise RuntimeUnavailable(f"Go cannot build the launcher: {output}")
            (scratch / "launcher").replace(file)

    async def _compiled(self, source: Path) -> FunctionFailure | None:
        try:
            code, output = await self._compile(Build(source, ["build", "-o", BINARY, "."]), BUILD_S)
        except TimeoutError:
            return _compile_error(f"The build was not ready after {BUILD_S:g} s.")
        if code == 0:
            return None
        return _compile_error(_readable(output, source))


def _lay_out(spec: FunctionSpec, source: Path, sources: Path) -> None:
    """The user's files and ours, ready for the compiler."""
    shutil.copytree(spec.code_dir, source, symlinks=True)
    go_mod = source / "go.mod"
    if not go_mod.exists():
        go_mod.write_text("module function\n\ngo 1.21\n")
    if spec.program_mode:
        return
    for name in _SHIM:
        shutil.copyfile(sources / name, source / name)
    module = _MODULE.search(go_mod.read_text())
    binding = _binding(spec.handler, module[1] if module else "function", _has_main(source))
    (source / "zz_faas_binding.go").write_text(binding)


def _binding(handler: str, module: str, has_main: bool) -> str:
    match = _CALLABLE.fullmatch(handler)
    name = match[1] if match else "Handler"
    # A package main needs a main to be vetted and run by hand: if there is one it is kept
    # and never reached, because init comes before it.
    entry = "init" if has_main else "main"
    return f"package main\n\nfunc {entry}() {{\n\tfaasServe({name}, {json.dumps(module)})\n}}\n"


def _has_main(source: Path) -> bool:
    files = (file for file in source.glob("*.go") if not file.name.endswith("_test.go"))
    return any(_MAIN.search(file.read_text(errors="replace")) for file in files)


def _readable(output: str, source: Path) -> str:
    """The compiler's words about the user's files: relative, without the package's heading."""
    lines = [
        line.removeprefix("./")
        for line in output.replace(f"{source}{os.sep}", "").splitlines()
        if not line.startswith(("# ", "go: downloading"))
    ]
    text = re.sub(r"^zz_faas_binding\.go:\d+:\d+: ", "the handler: ", "\n".join(lines), flags=re.M)
    return text[:MAX_MESSAGE_CHARACTERS]


def _compile_error(message: str) -> FunctionFailure:
    return FunctionFailure(Invocation.FUNCTION_ERROR, message, type="CompileError")


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent, prefix=".building-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
