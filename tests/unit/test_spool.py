"""The worker's spool: what is in it after every kind of end."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from faas.v1.execution_pb2 import Report
from faas.v1.invocation_pb2 import LargeContent
from services.worker import spool as spools
from services.worker.runtime import FileContent
from services.worker.spool import Spool, StateInUse

RESULT_BYTES = 1024


def report(number: int, size: int = 10) -> Report.Finished:
    return Report.Finished(invocation_id=f"inv-{number}", attempt=1, result=b"r" * size)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Spool]:
    spool = make(tmp_path, "boot-1")
    spool.open()
    yield spool
    spool.close()


def make(directory: Path, boot: str, slots: int = 2) -> Spool:
    return Spool(directory, boot_id=boot, max_result_bytes=RESULT_BYTES, slots=slots)


def killed(spool: Spool) -> None:
    """What is left of a boot that had no time to end: its files, but not its lock."""
    os.close(spool._lock)  # type: ignore[arg-type]
    spool._lock = None


def left(directory: Path) -> list[tuple[str, list[str]]]:
    later = make(directory, "boot-2")
    legacies = later.open()
    later.close()
    return [(one.boot_id, [v.invocation_id for v in one.verdicts]) for one in legacies]


def test_what_was_not_recorded_is_found_by_the_next_start(opened: Spool, tmp_path: Path) -> None:
    entries = [opened.append(report(number)) for number in range(3)]
    assert all(entries)
    killed(opened)
    assert left(tmp_path) == [("boot-1", ["inv-0", "inv-1", "inv-2"])]


def test_what_was_recorded_is_forgotten(opened: Spool, tmp_path: Path) -> None:
    for number in range(3):
        entry = opened.append(report(number))
        assert entry is not None
        opened.release(entry)
    killed(opened)
    assert left(tmp_path) == [("boot-1", [])]


def test_an_earlier_round_is_told_from_the_present_one(opened: Spool, tmp_path: Path) -> None:
    entries = [opened.append(report(number, 50)) for number in range(5)]
    for entry in entries:
        assert entry is not None
        opened.release(entry)
    opened.append(report(7, 50))
    killed(opened)
    assert left(tmp_path) == [("boot-1", ["inv-7"])]


@pytest.mark.parametrize("cut", [1, 20, 30])
def test_a_torn_end_costs_only_what_was_torn(opened: Spool, tmp_path: Path, cut: int) -> None:
    opened.append(report(1))
    second = opened.append(report(2))
    assert second is not None
    path = second.segment.path
    killed(opened)
    data = path.read_bytes()[: second.segment.end - cut]
    path.write_bytes(data)
    assert left(tmp_path) == [("boot-1", ["inv-1"])]


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    spool = make(tmp_path, "boot-1")
    spool.open()
    entry = spool.append(report(1))
    assert entry is not None
    spool.release(entry)
    spool.close()
    assert {path.name for path in tmp_path.rglob("*")} == {"lock", "large"}


def test_large_results_are_found_with_their_verdicts(opened: Spool, tmp_path: Path) -> None:
    told = [report(number) for number in range(3)]
    for verdict in told:
        content = LargeContent(size_bytes=5, sha256="00")
        verdict.large_result.CopyFrom(content)
        opened.append(verdict)
    there, cut, missing = (opened.result_file(one.invocation_id, one.attempt) for one in told)
    there.write_bytes(b"12345")
    cut.write_bytes(b"1234")
    assert missing.parent.is_dir()
    # Without a verdict it is run again.
    opened.result_file("inv-9", 1).write_bytes(b"12345")
    opened.payload_file("inv-0", 1).write_bytes(b"12345")
    killed(opened)
    later = make(tmp_path, "boot-2")
    (legacy,) = later.open()
    assert [one.invocation_id for one in legacy.verdicts] == ["inv-0"]
    assert legacy.large_result(legacy.verdicts[0]) == FileContent(there, 5, "00")
    assert list(there.parent.iterdir()) == [there]
    legacy.remove()
    assert not list(there.parent.iterdir())
    later.close()


def test_there_is_room_for_a_large_result(tmp_path: Path) -> None:
    for most, room in ((64 * 1024 * 1024, True), (1 << 60, False)):
        spool = Spool(tmp_path, boot_id="boot-1", max_result_bytes=most, slots=2)
        spool.open()
        assert spool.has_room(1) is room
        spool.close()


def test_an_end_with_something_to_tell_keeps_it(tmp_path: Path) -> None:
    spool = make(tmp_path, "boot-1")
    spool.open()
    spool.append(report(1))
    spool.close()
    assert left(tmp_path) == [("boot-1", ["inv-1"])]


def test_two_workers_cannot_share_it(opened: Spool, tmp_path: Path) -> None:
    with pytest.raises(StateInUse):
        make(tmp_path, "boot-2").open()


def test_a_full_segment_is_followed_by_another_and_goes_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(spools, "_BESIDE_RESULT_BYTES", 100)
    spool = make(tmp_path, "boot-1")
    spool.open()
    entries = []
    for number in range(20):
        assert spool.has_room(1)
        entries.append(spool.append(report(number, RESULT_BYTES)))
    files = len(list(tmp_path.glob("*.spool")))
    assert files > 3
    for entry in entries[:-1]:
        assert entry is not None
        spool.release(entry)
    assert len(list(tmp_path.glob("*.spool"))) == 1
    killed(spool)
    ((_, told),) = left(tmp_path)
    # With it, of its segment, what was recorded: told twice it does no harm.
    assert told[-1] == "inv-19"
    assert len(told) < 10


def test_a_full_disk_leaves_no_room_until_there_is_some(
    opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    full.set()
    allocate = spools._allocate

    def no_space(descriptor: int, size: int) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        allocate(descriptor, size)

    monkeypatch.setattr(spools, "_allocate", no_space)
    assert opened.has_room(1)
    entries = []
    while opened.has_room(1):
        entries.append(opened.append(report(len(entries), RESULT_BYTES)))
        assert entries[-1] is not None
    full.clear()
    assert opened.has_room(1)


async def test_what_is_recorded_soon_is_not_flushed_for_what_came_after_it(
    opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    rounds: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def sleep(_: float) -> None:
        over = asyncio.Event()
        rounds.put_nowait(over)
        await over.wait()

    monkeypatch.setattr(spools, "_flush", flushed.append)
    monkeypatch.setattr(spools.asyncio, "sleep", sleep)
    first = opened.append(report(1))
    running = asyncio.create_task(opened.run())
    one_round = await rounds.get()
    assert first is not None
    opened.release(first)
    opened.append(report(2))
    one_round.set()
    one_round = await rounds.get()
    assert flushed == []
    # It is not recorded by the end of its own.
    one_round.set()
    opened.append(report(3))
    await rounds.get()
    assert len(flushed) == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_what_is_not_recorded_soon_is_flushed_together(
    opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def flush(descriptor: int) -> None:
        flushed.append(descriptor)
        loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr(spools, "_flush", flush)
    running = asyncio.create_task(opened.run())
    for number in range(50):
        opened.append(report(number))
    await asyncio.wait_for(done.wait(), 30)
    assert len(flushed) == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
