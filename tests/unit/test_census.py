"""Finding what a sandbox left, among all processes of a machine."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.worker.census import MARK, Census, descendants
from services.worker.processes import Child
from tests.mesh import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

# Forks twice, in a session and with an environment of its own, and says who it is.
HIDES = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "echo $$; exec sleep 600"], {})
    os._exit(0)
while not os.path.exists("end"):
    time.sleep(0.02)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears a mark."""
    with subprocess.Popen(["sleep", "600"], env={MARK: "boot-1", "PATH": os.defpath}) as sleeper:
        yield sleeper
        sleeper.kill()


def test_who_bears_a_mark_is_found_before_and_after_a_look() -> None:
    census = Census()
    found = []
    for _ in range(2):
        environment = {MARK: "boot-1", "PATH": os.defpath}
        with subprocess.Popen(["sleep", "600"], env=environment) as sleeper:
            assert sleeper.pid in census.look()
            found.append((sleeper.pid, census.marked({b"boot-1"}), census.marked({b"boot-"})))
            sleeper.kill()
    assert all(exact == begins == [pid] for pid, exact, begins in found)


def test_other_marks_are_others(sleeper: subprocess.Popen[bytes]) -> None:
    census = Census()
    assert sleeper.pid in census.look()
    assert census.marked({b"boot", b"boot-2", b"other-"}) == []


def test_strangers_are_told_apart_once(sleeper: subprocess.Popen[bytes]) -> None:
    census = Census()
    ours = descendants(os.getpid())
    for _ in range(2):
        seen = census.look()
        assert ours & seen.keys() >= {os.getpid(), sleeper.pid}
        assert os.getppid() not in seen
        # The kernel's own, where they can be seen.
        assert 2 not in seen or 2 in ours


async def test_what_hides_is_noted_before_its_child_ends(tmp_path: Path) -> None:
    census = Census()
    census.look()
    child = Child(
        [sys.executable, "-c", HIDES],
        cwd=tmp_path,
        environment={"PATH": os.defpath},
        mark="boot-1",
        census=census,
    )
    stdout, _ = child.streams()
    try:
        async with asyncio.timeout(60):
            hidden = int(await stdout.readline())
        child.note_below()
        (tmp_path / "end").touch()
        assert await child.wait() == 0
        assert Path(f"/proc/{hidden}").exists()
    finally:
        await child.kill()
        child.close()

    async def gone() -> bool:
        return not Path(f"/proc/{hidden}").exists()

    await eventually("it is gone", gone)
