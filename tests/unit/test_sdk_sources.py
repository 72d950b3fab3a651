"""What is deployed: files, folders, archives."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from faas.errors import UnusableSource
from faas.sources import function_name, pack, prepared


def packed(folder: Path) -> bytes:
    output = io.BytesIO()
    pack(folder, output)
    return output.getvalue()


def names(folder: Path) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(packed(folder))).namelist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "My Function"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("def handler(p, c): return 1\n")
    (folder / "lib" / "a.py").write_text("A = 1\n")
    return folder


def test_text_is_text():
    with prepared("def handler(p):\n    return p\n") as code:
        assert code.text == "def handler(p):\n    return p\n"


def test_a_file_says_name_and_runtime(tmp_path):
    file = tmp_path / "Hello_World.js"
    file.write_text("exports.handler = () => 1\n")
    for source in (file, str(file)):
        with prepared(source) as code:
            assert (code.name, code.runtime) == ("hello-world", "node")
            assert code.text == "exports.handler = () => 1\n"


def test_a_folder_is_zipped_the_same_each_time(folder, tmp_path):
    first = packed(folder)
    os.utime(folder / "main.py", (1, 1))
    assert packed(folder) == first
    with prepared(folder) as code:
        assert (code.name, code.runtime) == ("my-function", "python")
        with code.open() as file:
            assert file.read() == first
        archive = code.archive
    assert isinstance(archive, Path)
    assert not archive.exists()


def test_what_does_not_belong_is_left_out(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / "lib" / "__pycache__").mkdir()
    (folder / "lib" / "__pycache__" / "a.pyc").write_text("x")
    (folder / "notes.txt").write_text("x")
    (folder / "lib" / "big.bin").write_text("x")
    (folder / ".faasignore").write_text("# ours\nnotes.txt\n/lib/*.bin\n")
    assert names(folder) == ["lib/a.py", "main.py"]


def test_executables_stay_executable(folder):
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o700)
    modes = {
        info.filename: info.external_attr >> 16 & 0o777
        for info in zipfile.ZipFile(io.BytesIO(packed(folder))).infolist()
    }
    assert modes == {"lib/a.py": 0o644, "main.py": 0o644, "tool": 0o755}


def test_a_link_within_is_followed_one_that_leaves_is_refused(folder, tmp_path):
    (folder / "again").symlink_to("lib")
    assert "again/a.py" in names(folder)
    (folder / "round").symlink_to(".")
    assert not any(name.startswith("round/") for name in names(folder))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    (folder / "out").symlink_to(outside)
    with pytest.raises(UnusableSource, match="out of"):
        packed(folder)


def test_a_file_link_that_leaves_is_refused(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    (folder / "secret").symlink_to(tmp_path / "secret")
    with pytest.raises(UnusableSource, match="out of"):
        packed(folder)


def test_a_broken_link_is_named(folder):
    (folder / "gone").symlink_to("nowhere")
    with pytest.raises(UnusableSource, match="gone"), prepared(folder):
        pass


def test_a_large_file_travels_as_an_archive(tmp_path):
    file = tmp_path / "big.py"
    file.write_text("X = 1\n" + "#" * 1_100_000)
    with prepared(file) as code:
        assert code.text is None
        with code.open() as archive:
            assert zipfile.ZipFile(archive).namelist() == ["main.py"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.rb", b"puts 1", "neither source nor archive"),
        ("x.py", b"", "empty"),
        ("x.py", b"\xff\xfe", "UTF-8"),
    ],
)
def test_files_that_cannot_be(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableSource, match=said), prepared(tmp_path / name):
        pass


def test_what_is_not_there_is_named(tmp_path):
    for name in ("gone.py", "gone.zip", "gone"):
        with pytest.raises(UnusableSource, match="gone"), prepared(tmp_path / name):
            pass


def test_a_folder_without_code_is_refused(tmp_path):
    with pytest.raises(UnusableSource, match=r"main\.py"), prepared(tmp_path):
        pass


def test_a_folder_of_two_languages_is_refused(folder):
    (folder / "main.js").write_text("x")
    with pytest.raises(UnusableSource, match="node and python"), prepared(folder):
        pass


def test_what_is_nothing_to_deploy():
    with pytest.raises(UnusableSource, match="int"), prepared(3):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hello.py", "hello"),
        ("/srv/hello/main.py", "hello"),
        ("3 Little_Pigs.tar.gz", "little-pigs"),
        ("func-x.py", "x"),
        ("9.py", ""),
    ],
)
def test_names(path, name):
    assert function_name(Path(path)) == name
