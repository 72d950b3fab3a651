"""What shows in numbers, in small ones; `make faults` plays it in great ones."""

import os
from pathlib import Path

import pytest

from tests.faults.many import FEATS, Feat
from tests.faults.stack import Stack

# Beyond what the queue takes at once.
COUNT = int(os.environ.get("FAAS_FAULT_BACKLOG", "2500"))

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest.mark.parametrize("feat", FEATS, ids=lambda feat: feat.name.replace(" ", "-"))
async def test_in_numbers(stack: Stack, tmp_path: Path, feat: Feat) -> None:
    await feat.play(stack, tmp_path, min(COUNT, feat.count) if feat.count > 1000 else 100)
