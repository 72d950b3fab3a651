"""Sandbox directories: made, removed, and swept when their boot is dead."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.worker.sandbox_dirs import SandboxDirs, is_dead

FUNCTION = "func-0"

LEAVE_ONE = """
import os, sys
from pathlib import Path
from services.worker.sandbox_dirs import SandboxDirs

dirs = SandboxDirs(Path(sys.argv[1]), stack=sys.argv[2], worker_id="w", boot_id="b")
dirs.open()
print(dirs.create("func-0"), flush=True)
if sys.argv[3] == "wait":
    sys.stdin.read()
os._exit(1)
"""


def opened(work_dir: Path, stack: str = "one") -> SandboxDirs:
    dirs = SandboxDirs(work_dir, stack=stack, worker_id="worker", boot_id="boot")
    dirs.open()
    return dirs


def leave_one(work_dir: Path, stack: str = "one") -> Path:
    """What a worker leaves that died with a sandbox."""
    command = [sys.executable, "-c", LEAVE_ONE, str(work_dir), stack, "die"]
    return Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Path]:
    """The sandbox directory of another process that lives."""
    command = [sys.executable, "-c", LEAVE_ONE, str(tmp_path), "one", "wait"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        yield Path(process.stdout.readline().strip())


def test_directories_are_private_and_distinct(tmp_path: Path) -> None:
    dirs = opened(tmp_path)
    first, second = dirs.create(FUNCTION), dirs.create(FUNCTION)
    assert first != second
    assert first.parent == second.parent == tmp_path / FUNCTION
    assert first.stat().st_mode & 0o777 == 0o700


def test_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    dirs = opened(tmp_path)
    first, second = dirs.create(FUNCTION), dirs.create(FUNCTION)
    (first / "function" / "locked").mkdir(parents=True)
    (first / "function" / "link").symlink_to(tmp_path)
    (first / "function" / "locked").chmod(0)
    dirs.remove(first)
    assert not first.exists()
    assert second.exists()
    dirs.remove(second)
    dirs.remove(second)  # again: nothing to do
    assert not (tmp_path / FUNCTION).exists()


def test_dead_boot_is_swept(tmp_path: Path) -> None:
    left = leave_one(tmp_path)
    assert left.is_dir()
    dirs = opened(tmp_path)
    mine = dirs.create(FUNCTION)
    assert dirs.sweep() == [left]
    assert not left.exists()
    assert mine.is_dir()
    assert [path.name for path in (tmp_path / ".boots").iterdir()] == [dirs.boot_file.name]


def test_living_boot_keeps_its_directories(tmp_path: Path, living: Path) -> None:
    assert opened(tmp_path).sweep() == []
    assert living.is_dir()


def test_other_stacks_are_left_alone(tmp_path: Path) -> None:
    left = leave_one(tmp_path, stack="other")
    assert opened(tmp_path).sweep() == []
    assert left.is_dir()


def test_closing_removes_everything(tmp_path: Path) -> None:
    dirs = opened(tmp_path)
    left = dirs.create(FUNCTION)
    boot_file = dirs.boot_file
    assert not is_dead(boot_file)
    dirs.close()
    dirs.close()
    assert not left.parent.exists()
    assert not boot_file.exists()
    assert is_dead(boot_file)


def test_mark_that_a_cleaner_took_is_made_anew(tmp_path: Path) -> None:
    dirs = opened(tmp_path)
    dirs.boot_file.unlink()
    assert is_dead(dirs.boot_file)
    dirs.create(FUNCTION)
    assert not is_dead(dirs.boot_file)


def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    try:
        os.chown(work_dir, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can give a directory away")
    with pytest.raises(PermissionError, match="another user"):
        opened(work_dir)


def test_strange_files_among_the_marks_do_no_harm(tmp_path: Path) -> None:
    dirs = opened(tmp_path)
    (tmp_path / ".boots" / "empty").touch()
    (tmp_path / ".boots" / "list").write_text("[]")
    (tmp_path / ".boots" / "object").write_text("{}")
    assert dirs.sweep() == []
