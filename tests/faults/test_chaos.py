"""A short storm; `make chaos` lets one rage for twenty minutes."""

import asyncio
import os

import pytest

from tests.faults.chaos import Weather, rage
from tests.faults.stack import Stack

SEED = int(os.environ.get("FAAS_FAULT_SEED", "1"))

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


async def test_a_storm_loses_nothing(stack: Stack) -> None:
    weather = Weather(30, clients=8, away_s=(0.5, 3.0))
    async with asyncio.timeout(880):
        storm = await rage(stack, SEED, weather)
    assert storm.strikes.total() > 0
    assert storm.kept.invocations > 0
