"""Half a minute of what `make soak` does for half an hour."""

import pytest

from tests.bench.soak import Plan, play

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def test_nothing_leaks_and_no_reply_is_anothers(docker_engine: object) -> None:
    plan = Plan(seconds=25, seed=1, functions=6, clients=3, change_every_s=4, kill_every_s=2)
    soaked = play(plan)
    assert soaked.wrong == []
    assert soaked.left == []
    assert soaked.calls.total() > 0
    assert soaked.kills > 0
