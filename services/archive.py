"""Archives of functions' code: read with suspicion, whoever sent them.

FunctionService checks an archive before it keeps it; a worker unpacks it under the
same rules. Nothing is believed that an archive says of itself: sizes are counted
while reading, and every path is one that stays inside.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from faas.v1.function_pb2 import CodeFormat
from services.errors import InvalidArchive

_CHUNK = 64 * 1024
_ZIP_MAGIC = b"PK\x03\x04"
_GZIP_MAGIC = b"\x1f\x8b"
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    unpacked_bytes: int = 512 * 1024 * 1024
    entries: int = 20_000


@dataclass(frozen=True)
class _Entry:
    path: PurePosixPath
    directory: bool
    executable: bool
    content: IO[bytes] | None


def detect_format(first_bytes: bytes, field: str = "archive") -> CodeFormat.ValueType:
    """What an archive that begins so is. Raises InvalidArchive."""
    if first_bytes.startswith(_ZIP_MAGIC):
        return CodeFormat.CODE_FORMAT_ZIP
    if first_bytes.startswith(_GZIP_MAGIC):
        return CodeFormat.CODE_FORMAT_TAR_GZ
    raise InvalidArchive.of(field, "is neither a zip nor a tar.gz")


def check(
    file: Path, code_format: CodeFormat.ValueType, limits: Limits, field: str = "archive"
) -> set[str]:
    """Read the whole archive; the paths of its files. Raises InvalidArchive."""
    names = set()
    with _named(field):
        for entry, content in _walk(file, code_format, limits):
            for _ in content:
                pass
            if not entry.directory:
                names.add(str(entry.path))
    return names


def extract(
    file: Path,
    code_format: CodeFormat.ValueType,
    directory: Path,
    limits: Limits,
    field: str = "archive",
) -> None:
    """Unpack into `directory`, which is there and empty. Raises InvalidArchive."""
    with _named(field):
        for entry, content in _walk(file, code_format, limits):
            target = directory / entry.path
            if entry.directory:
                target.mkdir(mode=0o755, parents=True, exist_ok=True)
                continue
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with target.open("xb") as output:
                for chunk in content:
                    output.write(chunk)
            target.chmod(0o755 if entry.executable else 0o644)


def copy_text(text: Path, target: Path) -> None:
    """Put code that was one file's text where it is run."""
    shutil.copyfile(text, target)
    target.chmod(0o644)


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise InvalidArchive.of(field, str(error)) from error
    except _BROKEN as error:
        raise InvalidArchive.of(field, f"cannot be read: {error}") from error


class _Refused(Exception):
    """Readable, and not acceptable."""


def _walk(
    file: Path, code_format: CodeFormat.ValueType, limits: Limits
) -> Iterator[tuple[_Entry, Iterator[bytes]]]:
    is_zip = code_format == CodeFormat.CODE_FORMAT_ZIP
    entries = _zip_entries(file) if is_zip else _tar_entries(file)
    seen: set[PurePosixPath] = set()
    left = limits.unpacked_bytes

    def counted(entry: _Entry) -> Iterator[bytes]:
        nonlocal left
        while entry.content and (chunk := entry.content.read(_CHUNK)):
            left -= len(chunk)
            if left < 0:
                raise _Refused(f"unpacks to more than {limits.unpacked_bytes} bytes")
            yield chunk

    for number, entry in enumerate(entries, start=1):
        if number > limits.entries:
            raise _Refused(f"has more than {limits.entries} entries")
        if entry.path in seen and not entry.directory:
            raise _Refused(f"has {entry.path} twice")
        seen.add(entry.path)
        yield entry, counted(entry)


def _zip_entries(file: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _safe(info.filename)
            if info.flag_bits & 0x1:
                raise _Refused(f"has {path} encrypted")
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"has {path}, which is neither a file nor a folder")
            if info.is_dir():
                yield _Entry(path, True, False, None)
            else:
                with archive.open(info) as content:
                    yield _Entry(path, False, bool(mode & 0o111), content)


def _tar_entries(file: Path) -> Iterator[_Entry]:
    # As a stream: nothing is read twice, and no index is believed.
    with tarfile.open(file, mode="r|gz") as archive:
        for info in archive:
            if info.name in (".", "./"):
                continue
            path = _safe(info.name)
            if info.isdir():
                yield _Entry(path, True, False, None)
            elif info.isreg():
                yield _Entry(path, False, bool(info.mode & 0o111), archive.extractfile(info))
            else:
                raise _Refused(f"has {path}, which is neither a file nor a folder")


def _safe(name: str) -> PurePosixPath:
    """The path of an entry. Raises _Refused where it could lead outside."""
    path = PurePosixPath(name)
    shown = ascii(name)[:200]
    if path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":":
        raise _Refused(f"has a path that leaves it: {shown}")
    if not path.parts or any(ord(character) < 32 for character in name) or len(name) > 1024:
        raise _Refused(f"has an unusable path: {shown}")
    return path


def read_file(
    file: Path, code_format: CodeFormat.ValueType, name: str, limits: Limits, field: str = "archive"
) -> bytes | None:
    """The content of one file of the archive; None where it has none so named."""
    with _named(field):
        for entry, content in _walk(file, code_format, limits):
            chunks = b"".join(content)
            if not entry.directory and str(entry.path) == name:
                return chunks
    return None
