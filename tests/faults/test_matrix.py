"""Each row of the fault matrix, one short round; `make faults` plays them for long."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.matrix import FAULTS, Fault
from tests.faults.rounds import SHORT, play
from tests.faults.stack import QUICK, Stack

SEED = int(os.environ.get("FAAS_FAULT_SEED", "1"))

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    """One stack for all rows; each leaves it whole, or it is made whole."""
    stack = Stack.make(QUICK)
    try:
        await stack.up()
        yield stack
    finally:
        await stack.down()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_nothing_is_lost_and_nothing_is_told_twice(stack: Stack, fault: Fault) -> None:
    await stack.heal()
    async with asyncio.timeout(580):
        played = await play(stack, fault, SEED, SHORT)
    assert played.kept.invocations > 0
