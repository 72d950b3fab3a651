"""Code to deploy: source text, a file, a folder, an archive, or a Python function.

A folder is zipped the same way each time, byte for byte, so that deploying what has
not changed makes no new version.
"""

import contextlib
import fnmatch
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from faas.errors import UnusableSource

RUNTIMES = {".py": "python", ".js": "node", ".mjs": "node", ".cjs": "node", ".go": "go"}
"""Which runtime a file is of."""
ARCHIVES = (".zip", ".tar.gz", ".tgz")
MAX_TEXT_BYTES = 1024 * 1024
"""What a file may have to travel as text; a larger one travels as an archive."""

IGNORE_FILE = ".faasignore"
IGNORED = (
    *(".git", ".hg", ".svn", ".venv", "venv", "__pycache__", "*.pyc", ".DS_Store"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".idea", ".vscode", IGNORE_FILE, "faas.toml"),
)
"""What of a folder is left out, beside what its `.faasignore` names."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can say


@dataclass(frozen=True)
class Code:
    """Code that is ready to travel."""

    runtime: str
    """Empty: it cannot be told from the code."""
    text: str | None = None
    archive: "bytes | Path | None" = None
    handler: str = ""
    """Empty: the server looks into the source."""
    name: str = ""
    """What a function of it is called, unless the caller says."""

    @property
    def size_bytes(self) -> int:
        """How much will travel."""
        if self.text is not None:
            return len(self.text.encode())
        if isinstance(self.archive, Path):
            return self.archive.stat().st_size
        return len(self.archive or b"")

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The archive, to be read."""
        if isinstance(self.archive, Path):
            with self.archive.open("rb") as file:
                yield file
        else:
            with tempfile.SpooledTemporaryFile() as file:
                file.write(self.archive or b"")
                file.seek(0)
                yield file


Source: TypeAlias = str | bytes | Path | Callable[..., Any] | Code
"""What can be deployed: see `prepared`."""


@contextlib.contextmanager
def prepared(source: Source) -> Iterator[Code]:
    """`source` as code. A str is source text, or a path if it looks like one.

    A folder's archive lives as long as the context. Raises UnusableSource.
    """
    if isinstance(source, Code):
        yield source
    elif isinstance(source, bytes):
        yield Code("", archive=source)
    elif isinstance(source, str) and not _is_path(source):
        yield Code("", text=source)
    elif isinstance(source, str | Path):
        with _read(Path(source)) as code:
            yield code
    elif callable(source):
        from faas.local import code_of

        yield code_of(source)
    else:
        raise UnusableSource(f"{type(source).__name__} is nothing that can be deployed.")


@contextlib.contextmanager
def _read(path: Path) -> Iterator[Code]:
    name = function_name(path)
    try:
        if path.is_dir():
            with tempfile.NamedTemporaryFile(prefix="faas-", suffix=".zip") as output:
                runtime = folder_runtime(path)
                pack(path, output)
                output.flush()
                yield Code(runtime, archive=Path(output.name), name=name)
        elif path.name.endswith(ARCHIVES):
            path.stat()
            yield Code("", archive=path, name=name)
        else:
            yield _file(path, name)
    except OSError as error:
        if error.filename is None:
            raise
        raise UnusableSource(f"{error.filename}: {error.strerror}.") from error


def _file(path: Path, name: str) -> Code:
    runtime = RUNTIMES.get(path.suffix, "")
    if not runtime and not path.stat().st_size:
        raise UnusableSource(f"{path} is empty.")
    if not runtime:
        known = ", ".join((*RUNTIMES, *ARCHIVES))
        raise UnusableSource(f"{path} is neither source nor archive: it must end in {known}.")
    if path.stat().st_size > MAX_TEXT_BYTES or path.suffix in (".mjs", ".cjs"):
        with tempfile.SpooledTemporaryFile() as output:
            with _zip(output) as archive:
                _add(archive, path, f"main{path.suffix}")
            output.seek(0)
            return Code(runtime, archive=output.read(), name=name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnusableSource(f"{path} is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise UnusableSource(f"{path} is empty.")
    return Code(runtime, text=text, name=name)


def folder_runtime(folder: Path) -> str:
    """What runs the main file of a folder. Raises UnusableSource where there is none."""
    found = {kind for suffix, kind in RUNTIMES.items() if (folder / f"main{suffix}").exists()}
    if len(found) > 1:
        kinds = " and ".join(sorted(found))
        raise UnusableSource(f"{folder} has main files of {kinds}: say which runtime is meant.")
    if found:
        return found.pop()
    if not folder.is_dir():
        raise UnusableSource(f"{folder} is no folder.")
    # A handler may name another module; the server looks for its file.
    kinds_there = {RUNTIMES[p.suffix] for p in folder.iterdir() if p.suffix in RUNTIMES}
    if len(kinds_there) == 1:
        return kinds_there.pop()
    raise UnusableSource(f"{folder} has no main.py, main.js or main.go.")


def function_name(path: Path) -> str:
    """A function's name, from a path's: empty if none can be made of it."""
    name = path.resolve().name
    for ending in (*ARCHIVES, *RUNTIMES):
        name = name.removesuffix(ending)
    if name == "main":
        name = path.resolve().parent.name
    name = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return re.sub("^[^a-z]+", "", name)[:63].removeprefix("func-")


def pack(folder: Path, output: IO[bytes]) -> None:
    """Write `folder` as a zip, the same bytes for the same files."""
    with _zip(output) as archive:
        for path, name in files_of(folder):
            _add(archive, path, name)


def files_of(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a folder that travel, with their names, in order of these."""
    patterns = (*IGNORED, *_ignore_patterns(folder / IGNORE_FILE))
    found: list[tuple[str, Path]] = []
    for directory, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(directory)
        kept = [d for d in folders if not _ignored((here / d).relative_to(folder), patterns)]
        folders[:] = [d for d in kept if _is_within(here / d, folder)]
        for file in files:
            name = (here / file).relative_to(folder)
            if not _ignored(name, patterns) and _is_within(here / file, folder):
                found.append((name.as_posix(), here / file))
    yield from ((path, name) for name, path in sorted(found))


def _ignore_patterns(file: Path) -> list[str]:
    if not file.exists():
        return []
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def _ignored(name: Path, patterns: tuple[str, ...]) -> bool:
    """A pattern with a slash is matched with the whole path, one without with its last part."""
    path = name.as_posix()
    return any(
        fnmatch.fnmatchcase(path if "/" in pattern else name.name, pattern.lstrip("/"))
        for pattern in patterns
    )


def _is_within(path: Path, folder: Path) -> bool:
    """False: a link to a folder that it is in. Raises UnusableSource where it leaves."""
    if not path.is_symlink():
        return True
    target = path.resolve()
    if not target.exists():
        raise UnusableSource(f"{path} is a link to {target}, which is not there.")
    if folder.resolve() not in (target, *target.parents):
        raise UnusableSource(f"{path} is a link out of {folder}: put what it shows there instead.")
    return target not in [parent.resolve() for parent in path.absolute().parents]


def _zip(output: IO[bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=6)


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableSource(f"{path} is no file.")
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix: or modes are lost
    info.external_attr = (stat.S_IFREG | (0o755 if status.st_mode & 0o100 else 0o644)) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = status.st_size
    with path.open("rb") as source, archive.open(info, "w") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)


def _is_path(text: str) -> bool:
    if "\n" in text:
        return False
    return text.endswith((*RUNTIMES, *ARCHIVES)) or text in (".", "..") or text.endswith("/")


def _raise(error: OSError) -> None:
    raise error
