"""The arena of each file, for every runtime that its cases mean something for."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.hostile.arena import Arena, an_arena


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    """Its parameter is `process` or `warm`."""
    socket = request.getfixturevalue("docker_engine") if request.param == "warm" else None
    directory = Path(tempfile.mkdtemp(prefix="faas-h-", dir="/tmp"))
    async with an_arena(request.param, directory, socket) as arena:
        yield arena
    shutil.rmtree(directory)
