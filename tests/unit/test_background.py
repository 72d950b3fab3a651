"""Loops end with what runs them, also those that miss that they are to."""

import asyncio

import pytest

from services.background import run_together, running


class Loop:
    """Goes on after so many cancellations, as a driver makes it do that loses them."""

    def __init__(self, losses: int = 0) -> None:
        self.losses = losses
        self.begun = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        try:
            while True:
                self.begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if not self.losses:
                        raise
                    self.losses -= 1
        finally:
            self.ended = True


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.background.CANCEL_AGAIN_S", 0.01)


@pytest.mark.parametrize("losses", [0, 1, 3])
async def test_loops_end_with_the_block(losses: int) -> None:
    loops = [Loop(losses), Loop()]
    async with asyncio.timeout(60), running(*(loop.run() for loop in loops)):
        for loop in loops:
            await loop.begun.wait()
    assert [loop.ended for loop in loops] == [True, True]


async def test_loops_of_loops_end_too() -> None:
    inner, beside = Loop(2), Loop(1)
    async with asyncio.timeout(60), running(run_together(inner.run()), beside.run()):
        await inner.begun.wait()
        await beside.begun.wait()
    assert (inner.ended, beside.ended) == (True, True)


async def test_who_cancels_hears_of_it() -> None:
    loop = Loop(2)
    task = asyncio.create_task(run_together(loop.run()))
    await loop.begun.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
    assert loop.ended


async def test_one_that_fails_ends_the_others_and_the_block() -> None:
    other = Loop(1)

    async def fails() -> None:
        await other.begun.wait()
        raise LookupError("a mistake of ours")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(60), running(fails(), other.run()):
            await asyncio.Event().wait()
    assert caught.group_contains(LookupError)
    assert other.ended


async def test_tasks_are_called_after_what_they_run() -> None:
    loop = Loop()
    async with running(loop.run()):
        await loop.begun.wait()
        assert "Loop.run" in {task.get_name() for task in asyncio.all_tasks()}
