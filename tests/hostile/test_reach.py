"""What a function must not reach: the host, the platform, and its neighbours."""

import json

import pytest

from tests.hostile.arena import Arena
from tests.hostile.reach import NEIGHBOUR, PROBES, SECRET, denied
from tests.hostile.table import LANGUAGES
from tests.hostile.verdicts import WARM

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("arena", [WARM], indirect=True, scope="module"),
]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_it_is_told_no(arena: Arena, language: str) -> None:
    env = {"HELD": SECRET}
    holder = arena.bench.spec("python", NEIGHBOUR, env=env, memory_mb=128)
    held = await arena.attack(holder, 60)
    assert held.verdict.result == json.dumps(SECRET).encode()
    spec = arena.bench.spec(language, PROBES[language], memory_mb=128)
    ran = await arena.attack(spec, 60)
    assert ran.verdict.failure is None, ran
    assert json.loads(ran.verdict.result) == denied(language)
    await arena.serve_neighbour()
