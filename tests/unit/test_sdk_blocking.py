"""Asynchronous iteration behind a blocking face, and interrupts of it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from faas.blocking import Portal


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_an_interrupt_is_what_the_caller_sees(portal: Portal) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            # On its way out it is busy: not to be closed yet.
            await asyncio.sleep(0.05)
            closed.append(True)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        iterator = portal.iterate(items())
        assert next(iterator) == 1
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert closed == [True]
