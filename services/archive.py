"""Archives of functions' code: read with suspicion, whoever sent them.

FunctionService checks an archive before it keeps it; a worker unpacks it under the
same rules. Nothing is believed that an archive says of itself: sizes are counted
while reading, and every path is one that stays inside.
"""

import errno
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from faas.v1.function_pb2 import CodeFormat
from services.errors import InvalidArchive

try:
    from lzma import LZMAError
except ImportError:  # a Python without it: zipfile says so itself
    LZMAError = zlib.error  # type: ignore[misc,assignment]

_CHUNK = 64 * 1024
_ZIP_MAGIC = b"PK\x03\x04"
_GZIP_MAGIC = b"\x1f\x8b"
_CENTRAL_RECORD = b"PK\x01\x02"
_TAR_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_EXTENSION_BYTES = 64 * 1024
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    LZMAError,
    EOFError,
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
    directory: bool = False
    executable: bool = False
    content: IO[bytes] | None = None


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


def read_file(
    file: Path,
    code_format: CodeFormat.ValueType,
    name: str,
    limits: Limits,
    *,
    most_bytes: int,
    field: str = "archive",
) -> bytes | None:
    """The first `most_bytes` of one file; None where there is none of that name."""
    with _named(field):
        for entry, content in _walk(file, code_format, limits):
            wanted = not entry.directory and str(entry.path) == name
            found = b""
            for chunk in content:
                if wanted and len(found) < most_bytes:
                    found += chunk
            if wanted:
                return found[:most_bytes]
    return None


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise InvalidArchive.of(field, str(error)) from error
    except _BROKEN as error:
        raise InvalidArchive.of(field, f"cannot be read: {_shown(str(error))}") from error
    except OSError as error:
        # An offset that leads before the file's start, or bzip2's way of saying that data
        # is broken; all else is this machine's trouble.
        if error.errno not in (errno.EINVAL, None):
            raise
        why = "an offset is wrong" if error.errno else _shown(str(error))
        raise InvalidArchive.of(field, f"cannot be read: {why}") from error


class _Refused(Exception):
    """Readable, and not acceptable."""


def _walk(
    file: Path, code_format: CodeFormat.ValueType, limits: Limits
) -> Iterator[tuple[_Entry, Iterator[bytes]]]:
    is_zip = code_format == CodeFormat.CODE_FORMAT_ZIP
    entries = _zip_entries(file, limits) if is_zip else _tar_entries(file, limits)
    files: set[PurePosixPath] = set()
    directories: set[PurePosixPath] = set()
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
        above = set(entry.path.parents) | ({entry.path} if entry.directory else set())
        taken = entry.path in files or (not entry.directory and entry.path in directories)
        if taken or not above.isdisjoint(files):
            raise _Refused(f"has {_shown(str(entry.path))} twice")
        directories |= above
        if not entry.directory:
            files.add(entry.path)
        yield entry, counted(entry)


def _zip_entries(file: Path, limits: Limits) -> Iterator[_Entry]:
    # Opening reads the whole directory into memory, so its size is looked at before.
    # Archives inside the archive count too, hence the allowance.
    if _occurrences(file, _CENTRAL_RECORD) > limits.entries * 5:
        raise _Refused(f"has more than {limits.entries} entries")
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _safe(info.filename)
            if info.flag_bits & 0x1:
                raise _Refused(f"has {_shown(info.filename)} encrypted")
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"has {_shown(info.filename)}, neither a file nor a folder")
            if info.is_dir():
                yield _Entry(path, directory=True)
            else:
                with archive.open(info) as content:
                    yield _Entry(path, executable=bool(mode & 0o111), content=content)


class _Member(tarfile.TarInfo):
    """A header of a tar; tarfile would read an extension of any size into memory.

    So it would the map of a sparse file, in each of the four ways that there are to write one.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _TAR_EXTENSIONS and self.size > _EXTENSION_BYTES:
            raise _Refused("has an extended header that is too large")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member

    def _refuse_sparse(self, *_: object) -> NoReturn:
        raise _Refused("has a sparse file: pack it without --sparse")

    _proc_sparse = _refuse_sparse
    _proc_gnusparse_00 = _refuse_sparse
    _proc_gnusparse_01 = _refuse_sparse
    _proc_gnusparse_10 = _refuse_sparse


def _tar_entries(file: Path, limits: Limits) -> Iterator[_Entry]:
    # As a stream: nothing is read twice, and no index is believed.
    with (
        gzip.open(file) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Member) as archive,
    ):
        for info in archive:
            if info.isdir() and info.name in (".", "./"):
                continue
            path = _safe(info.name)
            if info.isdir():
                yield _Entry(path, directory=True)
            elif info.isreg():
                content = archive.extractfile(info)
                yield _Entry(path, executable=bool(info.mode & 0o111), content=content)
            else:
                raise _Refused(f"has {_shown(info.name)}, neither a file nor a folder")
        # What follows is padding and gzip's checksum: without it the archive was cut off.
        left = limits.unpacked_bytes
        while chunk := unpacked.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _Refused(f"unpacks to more than {limits.unpacked_bytes} bytes")


def _safe(name: str) -> PurePosixPath:
    """The path of an entry. Raises _Refused where it could lead outside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":":
        raise _Refused(f"has a path that leads out of it: {_shown(name)}")
    try:
        longest = max((len(part.encode()) for part in path.parts), default=0)
    except UnicodeEncodeError:
        longest = 0  # not UTF-8
    if not 0 < longest <= 255 or len(name) > 1024 or min(name) < " ":
        raise _Refused(f"has an unusable path: {_shown(name)}")
    return path


def _occurrences(file: Path, what: bytes) -> int:
    count, tail = 0, b""
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            text = tail + chunk
            count += text.count(what)
            tail = text[-(len(what) - 1) :]
    return count


def _shown(text: str) -> str:
    """Text of an archive as it may stand in a message."""
    return ascii(text)[1:-1][:200]
