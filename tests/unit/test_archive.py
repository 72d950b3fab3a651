"""Archives: what is read, and what is refused."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from faas.v1.function_pb2 import CodeFormat
from services import archive
from services.archive import Limits
from services.errors import InvalidArchive

ZIP = CodeFormat.CODE_FORMAT_ZIP
TAR = CodeFormat.CODE_FORMAT_TAR_GZ
Files = Iterable[tuple[str, bytes]]
FILES = [("main.py", b"def handler(p, c): return 1\n"), ("lib/a.py", b"A = 1\n")]


def a_zip(files: Files) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, data)
    return output.getvalue()


def a_tar(files: Files, **fields: object) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as made:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            made.addfile(info, io.BytesIO(data))
    return output.getvalue()


Make = Callable[[Files], bytes]
both = pytest.mark.parametrize(("make", "code_format"), [(a_zip, ZIP), (a_tar, TAR)])


def check(tmp_path: Path, data: bytes, code_format: int, limits: Limits | None = None) -> set[str]:
    file = tmp_path / "archive"
    file.write_bytes(data)
    return archive.check(file, code_format, limits or Limits())


def refusal(
    tmp_path: Path, data: bytes, code_format: int = TAR, limits: Limits | None = None
) -> str:
    with pytest.raises(InvalidArchive) as caught:
        check(tmp_path, data, code_format, limits)
    assert [v.field for v in caught.value.violations] == ["archive"]
    return caught.value.message


@both
def test_the_format_is_in_the_first_bytes(make: Make, code_format: int) -> None:
    assert archive.detect_format(make(FILES)) == code_format


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"Rar!", b"def handler(): ..."])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArchive, match="neither a zip nor"):
        archive.detect_format(data)


@both
def test_a_good_archive_is_checked_read_and_unpacked(
    tmp_path: Path, make: Make, code_format: int
) -> None:
    assert check(tmp_path, make(FILES), code_format) == {"main.py", "lib/a.py"}
    file, target = tmp_path / "archive", tmp_path / "unpacked"
    target.mkdir()
    archive.extract(file, code_format, target, Limits())
    assert {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*.py")} == dict(FILES)
    assert stat.S_IMODE((target / "main.py").stat().st_mode) == 0o644
    read = archive.read_file(file, code_format, "main.py", Limits(), most_bytes=5)
    assert read == b"def h"
    assert archive.read_file(file, code_format, "no.py", Limits(), most_bytes=5) is None


def test_an_executable_stays_one_and_nothing_more(tmp_path: Path) -> None:
    file = tmp_path / "archive"
    file.write_bytes(a_tar([("run", b"#!/bin/sh\n")], mode=0o6777))
    target = tmp_path / "unpacked"
    target.mkdir()
    archive.extract(file, TAR, target, Limits())
    assert stat.S_IMODE((target / "run").stat().st_mode) == 0o755


def test_folders_and_a_leading_dot_are_fine(tmp_path: Path) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as made:
        for name in (".", "./lib", "./lib"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            made.addfile(info)
        made.addfile(tarfile.TarInfo("./main.py"))
    assert check(tmp_path, output.getvalue(), TAR) == {"main.py"}


@both
@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "C:\\x", "C:x", "..\\x", "a\\b", "a\nb", "n" * 300, ".."],
)
def test_paths_that_lead_out_or_cannot_be_are_refused(
    tmp_path: Path, make: Make, code_format: int, name: str
) -> None:
    message = refusal(tmp_path, make([("main.py", b""), (name, b"x")]), code_format)
    assert "path" in message
    assert message.isprintable()


@both
@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_path_twice_is_refused(
    tmp_path: Path, make: Make, code_format: int, names: tuple[str, str]
) -> None:
    assert "twice" in refusal(tmp_path, make([(name, b"x") for name in names]), code_format)


@both
def test_too_many_entries_are_refused(tmp_path: Path, make: Make, code_format: int) -> None:
    files = [(str(n), b"") for n in range(4)]
    assert len(check(tmp_path, make(files), code_format, Limits(entries=4))) == 4
    assert "more than 3" in refusal(tmp_path, make(files), code_format, Limits(entries=3))


def test_a_zip_with_a_huge_directory_is_refused_unopened(tmp_path: Path) -> None:
    files = a_zip([(str(n), b"") for n in range(60)])
    assert "more than 10" in refusal(tmp_path, files, ZIP, Limits(entries=10))


@both
def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, make: Make, code_format: int) -> None:
    data = make([("a", bytes(600_000)), ("b", bytes(600_000))])
    assert len(data) < 10_000
    message = refusal(tmp_path, data, code_format, Limits(unpacked_bytes=1_000_000))
    assert "more than 1000000 bytes" in message


def test_a_stated_size_is_not_believed(tmp_path: Path) -> None:
    data = a_zip([("a", bytes(1_000_000))])
    lying = data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != data
    refusal(tmp_path, lying, ZIP, Limits(unpacked_bytes=100_000))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    data = a_tar([("x", b"")], type=kind, linkname="/etc/passwd")
    assert "neither a file nor a folder" in refusal(tmp_path, data)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as made:
        info = zipfile.ZipInfo("x")
        info.external_attr = (kind | 0o777) << 16
        made.writestr(info, "/etc/passwd")
    assert "neither a file nor a folder" in refusal(tmp_path, output.getvalue(), ZIP)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(a_zip([("x", b"secret")]))
    data[6] |= 1  # the flags of the local header, and of the directory's
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(tmp_path, bytes(data), ZIP)


@both
def test_broken_archives_are_refused(tmp_path: Path, make: Make, code_format: int) -> None:
    data = make([(str(n), bytes(range(256)) * 10) for n in range(20)])
    for cut in range(4, len(data), len(data) // 40):
        refusal(tmp_path, data[:cut], code_format)


@both
def test_no_garbling_raises_anything_else(tmp_path: Path, make: Make, code_format: int) -> None:
    data = make(FILES)
    for place in range(4, len(data)):
        garbled = bytearray(data)
        garbled[place] ^= 0xFF
        try:
            check(tmp_path, bytes(garbled), code_format)
        except InvalidArchive as error:
            error.message.encode()


def test_an_extended_header_of_any_size_is_not_read(tmp_path: Path) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as made:
        info = tarfile.TarInfo("main.py")
        info.pax_headers = {"comment": "x" * 1_000_000}
        made.addfile(info)
    assert "extended header" in refusal(tmp_path, output.getvalue())


def sparse_tar() -> bytes:
    """GNU's oldest way: a map in the header, and as many blocks of it after that as one likes."""
    header = bytearray(tarfile.TarInfo("main.py").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[482] = 1  # more of the map follows
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    part = b"00000000001\0" * 42
    blocks = (part + b"\1" + bytes(7)) * 50 + part + bytes(8)
    return gzip.compress(bytes(header) + blocks + bytes(1024))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.size": "9", "GNU.sparse.offset": "0", "GNU.sparse.numbytes": "9"},
        {"GNU.sparse.map": "0,9", "GNU.sparse.size": "9"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        None,
    ],
)
def test_no_map_of_a_sparse_file_is_read(tmp_path: Path, headers: dict[str, str] | None) -> None:
    data = a_tar([("main.py", b"1\n0\n9\n")], pax_headers=headers) if headers else sparse_tar()
    assert "sparse" in refusal(tmp_path, data)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_a_zip_may_be_broken_too(tmp_path: Path, method: int) -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", method) as made:
        made.writestr("main.py", b"def handler(p, c): return 1\n" * 50)
    data = output.getvalue()
    assert check(tmp_path, data, ZIP) == {"main.py"}
    refused = 0
    for place in range(30, data.index(b"PK\x01\x02")):
        garbled = bytearray(data)
        garbled[place] ^= 0xFF
        try:
            check(tmp_path, bytes(garbled), ZIP)
        except InvalidArchive:
            refused += 1
    assert refused


def test_this_machines_trouble_is_not_the_archives(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive.check(tmp_path / "gone", ZIP, Limits())
