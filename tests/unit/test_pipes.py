"""What a sandbox prints is its invocation's, and what nobody asked for is no burden."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.worker import output
from services.worker import pipes as worker_pipes
from services.worker.output import PIECE_BYTES, Output
from services.worker.pipes import DROP_BYTES, UNASKED_BYTES, Pipes
from services.worker.runtime import Line, OutputLimits
from tests.mesh import eventually


@pytest.fixture
def stdout(tmp_path: Path) -> Iterator[tuple[Pipes, int]]:
    """Pipes, and the function's end of its stdout, which never blocks here."""
    pipes = Pipes(tmp_path)
    end = os.open(tmp_path / "out", os.O_WRONLY | os.O_NONBLOCK)
    yield pipes, end
    os.close(end)
    pipes.close()


async def filled(end: int, enough: Callable[[int], bool]) -> int:
    """Write until the pipe is full and that is enough; the bytes written."""
    written = 0

    async def full() -> bool:
        nonlocal written
        try:
            written += os.write(end, b"x" * 65536)
        except BlockingIOError:
            return enough(written)
        return False

    await eventually("the pipe is full, and not read", full)
    return written


async def test_lines_are_the_invocations_in_which_they_were_printed(
    stdout: tuple[Pipes, int],
) -> None:
    pipes, end = stdout
    pipes.listen()
    for number in range(3):
        lines: list[Line] = []
        await pipes.turn_to(Output(lines.append, OutputLimits()))
        os.write(end, b"in %d\n" % number)
        await pipes.turn_away()
        os.write(end, b"after it\n")
        assert [line.text for line in lines] == [f"in {number}"]
    assert pipes.quiet


async def test_what_prints_without_end_unasked_waits(stdout: tuple[Pipes, int]) -> None:
    pipes, end = stdout
    pipes.listen()
    written = await filled(end, lambda _: not pipes.quiet)
    assert UNASKED_BYTES < written < UNASKED_BYTES + (1 << 20)
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        os.write(end, b"x")


async def test_after_work_for_one_piece_it_waits_before_the_next(
    stdout: tuple[Pipes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SLICE_S", 0.0)
    monkeypatch.setattr(output, "PAUSE_FACTOR", 1e9)
    pipes, end = stdout
    pipes.listen()
    lines: list[Line] = []
    await pipes.turn_to(Output(lines.append, OutputLimits()))
    os.write(end, b"a line\n" * (4 * PIECE_BYTES // 7))

    async def begun() -> bool:
        return bool(lines)

    await eventually("something is read", begun)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(lines) == PIECE_BYTES // 7
    # Whoever waits for the end of it is not held up by that.
    monkeypatch.setattr(output, "SLICE_S", 1e9)
    await pipes.turn_away()
    assert len(lines) == 4 * PIECE_BYTES // 7


async def test_what_is_dropped_is_counted_with_pauses(
    stdout: tuple[Pipes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pipes, "DROP_PAUSE_S", 1e6)
    pipes, end = stdout
    pipes.listen()
    kill_bytes = 10 * DROP_BYTES
    flooded = Output(lambda _: None, OutputLimits(log_bytes=1, kill_bytes=kill_bytes))
    await pipes.turn_to(flooded)
    written = await filled(end, lambda written: written >= DROP_BYTES)
    # Who waits for the end of it is not held up by that.
    await pipes.turn_away()
    os.write(end, b"x")
    assert written < DROP_BYTES + (1 << 20)
    assert not flooded.flooded.is_set()


async def test_a_flood_that_is_dropped_is_noticed(stdout: tuple[Pipes, int]) -> None:
    pipes, end = stdout
    pipes.listen()
    flooded = Output(lambda _: None, OutputLimits(log_bytes=1, kill_bytes=10 * DROP_BYTES))
    await pipes.turn_to(flooded)
    written = 0

    async def noticed() -> bool:
        nonlocal written
        with contextlib.suppress(BlockingIOError):
            written += os.write(end, b"x" * 65536)
        return flooded.flooded.is_set()

    await eventually("the flood is noticed", noticed)
    assert written > 10 * DROP_BYTES


async def test_what_it_waits_for_is_what_was_there(stdout: tuple[Pipes, int]) -> None:
    pipes, end = stdout
    pipes.listen()
    written = 0

    def goes_on(_: Line) -> None:
        nonlocal written
        written += os.write(end, b"and another\n")

    await pipes.turn_to(Output(goes_on, OutputLimits(log_bytes=10**9)))
    os.write(end, b"x\n")
    await pipes.turn_away()
    assert written == len(b"and another\n")
