"""Sandbox directories: made, removed, and swept when their boot is dead."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.worker.runtime import RuntimeUnavailable
from services.worker.sandbox_dirs import SandboxDirs, is_dead

FUNCTION = "func-01234567-89ab-7def-8123-456789abcdef"

LEAVE_ONE = """
import asyncio, os, sys, uuid
from pathlib import Path
from services.worker.sandbox_dirs import SandboxDirs

async def main():
    dirs = SandboxDirs(Path(sys.argv[1]), stack=sys.argv[2], boot_id=str(uuid.uuid4()))
    dirs.open()
    async with dirs.sandbox(sys.argv[4]) as sandbox:
        print(sandbox.path, flush=True)
        if sys.argv[3] == "wait":
            sys.stdin.read()
        os._exit(1)

asyncio.run(main())
"""


def new_dirs(work_dir: Path, stack: str = "one") -> SandboxDirs:
    return SandboxDirs(work_dir, stack=stack, boot_id=str(uuid.uuid4()))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="faas-dirs-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def dirs(short_path: Path) -> Iterator[SandboxDirs]:
    dirs = new_dirs(short_path)
    assert dirs.open() == []
    yield dirs
    dirs.close()


def leave_one(work_dir: Path, stack: str = "one") -> Path:
    """What a worker leaves that died with a sandbox."""
    command = [sys.executable, "-c", LEAVE_ONE, str(work_dir), stack, "die", FUNCTION]
    left = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    assert left.is_dir()
    return left


@pytest.fixture
def living(short_path: Path) -> Iterator[Path]:
    """The sandbox directory of another process that lives."""
    command = [sys.executable, "-c", LEAVE_ONE, str(short_path), "one", "wait", FUNCTION]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        yield Path(process.stdout.readline().strip())


async def test_directories_are_private_and_distinct(dirs: SandboxDirs, short_path: Path) -> None:
    async with dirs.sandbox(FUNCTION) as first, dirs.sandbox(FUNCTION) as second:
        assert first.path != second.path
        assert first.path.parent == second.path.parent == short_path / FUNCTION
        assert first.path.stat().st_mode & 0o777 == 0o700


async def test_removed_with_all_that_is_in_it(dirs: SandboxDirs, short_path: Path) -> None:
    async with dirs.sandbox(FUNCTION) as outer:
        async with dirs.sandbox(FUNCTION) as inner:
            (inner.path / "function" / "closed").mkdir(parents=True)
            (inner.path / "function" / "link").symlink_to(outer.path)
            (inner.path / "function" / "closed").chmod(0)
        assert not inner.path.exists()
        assert outer.path.exists()
    assert not (short_path / FUNCTION).exists()


def test_dead_boot_is_swept(short_path: Path) -> None:
    left = leave_one(short_path)
    dirs = new_dirs(short_path)
    dead = dirs.open()
    assert left.name.startswith(f"{dead[0]}-")
    assert not left.exists()
    assert dirs.boot_file.with_name(dead[0]).exists()
    dirs.bury(dead)
    assert [path.name for path in dirs.boot_file.parent.iterdir()] == [dirs.boot]
    dirs.close()


def test_living_boot_keeps_its_directories(short_path: Path, living: Path) -> None:
    dirs = new_dirs(short_path)
    assert dirs.open() == []
    assert living.is_dir()
    dirs.close()


def test_other_stacks_are_left_alone(short_path: Path) -> None:
    left = leave_one(short_path, stack="other")
    dirs = new_dirs(short_path)
    assert dirs.open() == []
    assert left.is_dir()
    dirs.close()


async def test_closing_removes_everything(short_path: Path) -> None:
    dirs = new_dirs(short_path)
    dirs.open()
    async with dirs.sandbox(FUNCTION) as sandbox:
        assert not is_dead(dirs.boot_file)
        dirs.close()
        dirs.close()
        assert not sandbox.path.exists()
    assert not dirs.boot_file.exists()
    assert is_dead(dirs.boot_file)


async def test_mark_that_a_cleaner_took_is_made_anew(dirs: SandboxDirs) -> None:
    dirs.boot_file.unlink()
    assert is_dead(dirs.boot_file)
    async with dirs.sandbox(FUNCTION):
        assert not is_dead(dirs.boot_file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(short_path: Path) -> None:
    work_dir = short_path / "work"
    work_dir.mkdir()
    os.chown(work_dir, 12345, 12345)
    with pytest.raises(RuntimeUnavailable, match="another user"):
        new_dirs(work_dir).open()


def test_path_that_no_socket_fits_is_refused(short_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="too long a path"):
        new_dirs(short_path / ("x" * 60)).open()
