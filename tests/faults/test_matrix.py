"""Each row of the fault matrix, one short round; `make faults` plays them for long."""

import asyncio
import os

import pytest

from tests.faults.matrix import FAULTS, Fault
from tests.faults.rounds import SHORT, play
from tests.faults.stack import Stack

SEED = int(os.environ.get("FAAS_FAULT_SEED", "1"))

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_nothing_is_lost_and_nothing_is_told_twice(stack: Stack, fault: Fault) -> None:
    if lacking := fault.lacking():
        pytest.skip(f"it needs {lacking}")
    await stack.heal()
    async with asyncio.timeout(580):
        played = await play(stack, fault, SEED, SHORT)
    assert played.kept.invocations > 0
