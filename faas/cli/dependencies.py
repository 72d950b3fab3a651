"""What a function needs beside its own files, put into its archive.

| there is | done |
|---|---|
| `requirements.txt` | `pip install --target`, or `uv pip install --target` where uv is |
| `package.json` with dependencies, no `node_modules` | `npm ci`, or `npm install` without a lock |
| `go.mod` with requirements, no `vendor` | `go mod vendor` |

All of it in a copy, so that the folder stays as it is. The packages are those of this
machine: a compiled one must fit the runtime's system and version too.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faas.cli.failures import Failed
from faas.cli.output import busy
from faas.sources import files_of

_TAIL_LINES = 15


@dataclass(frozen=True)
class Resolver:
    """How one language gets its packages."""

    file: str
    needed: Callable[[Path], bool]
    command: Callable[[Path], list[str]]
    """For a copy of the folder, in which it runs. Raises Failed without the tool."""


@contextmanager
def resolved(folder: Path, runtime: str) -> Iterator[Path]:
    """The folder, or a copy of it with what it needs, as long as the context lasts.

    Raises Failed where the tool is not there, or does not succeed.
    """
    resolver = _RESOLVERS.get(runtime)
    if not folder.is_dir() or resolver is None or not resolver.needed(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="faas-deploy-") as directory:
        copy = Path(directory) / "code"
        copy.mkdir()
        _copy(folder, copy)
        _run(resolver.command(copy), copy, resolver.file)
        if runtime == "python":
            # Scripts that name this machine's Python.
            shutil.rmtree(copy / "bin", ignore_errors=True)
        _copy(folder, copy)  # what is the user's own wins
        yield copy


def _copy(folder: Path, copy: Path) -> None:
    for path, name in files_of(folder):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _run(command: Sequence[str], folder: Path, why: str) -> None:
    shown = f"{Path(command[0]).name} for {why}"
    with busy(f"{shown} …"):
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        tail = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-_TAIL_LINES:])
        raise Failed(
            f"{shown} failed, exit code {done.returncode}:\n{tail}\n"
            f"Mend {why}, or deploy with --no-deps what is there."
        )


def _pip(copy: Path) -> list[str]:
    arguments = ["install", "--quiet", "--target", str(copy), "--requirement", "requirements.txt"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", *arguments, "--python", sys.executable]
    if importlib.util.find_spec("pip") is None:
        raise _missing("requirements.txt", "pip or uv")
    return [sys.executable, "-m", "pip", *arguments, "--no-compile", "--disable-pip-version-check"]


def _npm(copy: Path) -> list[str]:
    npm = shutil.which("npm") or _refuse("package.json", "npm")
    verb = "ci" if (copy / "package-lock.json").exists() else "install"
    return [npm, verb, "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]


def _go(_copy: Path) -> list[str]:
    return [shutil.which("go") or _refuse("go.mod", "go"), "mod", "vendor"]


def _wants_pip(folder: Path) -> bool:
    lines = _text(folder / "requirements.txt").splitlines()
    return any(line.strip() and not line.strip().startswith("#") for line in lines)


def _wants_npm(folder: Path) -> bool:
    file = folder / "package.json"
    if (folder / "node_modules").exists() or not file.exists():
        return False
    try:
        found = json.loads(_text(file))
    except ValueError as error:
        raise Failed(f"{file} is no JSON: {error}.") from error
    return isinstance(found, dict) and bool(found.get("dependencies"))


def _wants_go(folder: Path) -> bool:
    return "require" in _text(folder / "go.mod") and not (folder / "vendor").exists()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _refuse(file: str, tool: str) -> str:
    raise _missing(file, tool)


def _missing(file: str, tool: str) -> Failed:
    return Failed(
        f"{file} needs {tool}, which is not on PATH: install it,"
        " or put the packages into the folder yourself and deploy with --no-deps."
    )


_RESOLVERS = {
    "python": Resolver("requirements.txt", _wants_pip, _pip),
    "node": Resolver("package.json", _wants_npm, _npm),
    "go": Resolver("go.mod", _wants_go, _go),
}
