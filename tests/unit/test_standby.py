"""How what is to be kept ready is spread over the workers."""

from collections import Counter

from faas.v1.execution_pb2 import Directive
from faas.v1.function_registry_service_pb2 import ListMinWarmResponse
from faas.v1.worker_pb2 import Worker
from services.invocations.standby import spread


def a_worker(name: str, *runtimes: str, **fields: object) -> Worker:
    values = {"state": Worker.READY, "keeps_warm": True, **fields}
    return Worker(
        id=name,
        runtimes=[Worker.Runtime(name=runtime) for runtime in runtimes or ("python",)],
        **values,  # type: ignore[arg-type]
    )


def wanted(name: str, number: int, runtime: str = "python") -> ListMinWarmResponse.Function:
    return ListMinWarmResponse.Function(
        function_id=name, version=3, runtime=runtime, min_warm=number
    )


def numbers(shares: dict[str, Directive.Kept], function: str) -> dict[str, int]:
    return {
        worker: one.sandboxes
        for worker, kept in shares.items()
        for one in kept.functions
        if one.function_id == function
    }


def test_each_function_is_spread_evenly() -> None:
    workers = [a_worker(f"w{n}") for n in range(3)]
    shares = spread([wanted("f", 7)], workers)
    assert sorted(numbers(shares, "f").values()) == [2, 2, 3]
    assert {one.function_version for kept in shares.values() for one in kept.functions} == {3}


def test_functions_that_want_one_meet_different_workers() -> None:
    workers = [a_worker(f"w{n}") for n in range(3)]
    shares = spread([wanted(f"f{n}", 1) for n in range(300)], workers)
    counts = Counter({worker: len(kept.functions) for worker, kept in shares.items()})
    assert sum(counts.values()) == 300
    assert min(counts.values()) > 60


def test_only_workers_that_can_are_asked() -> None:
    workers = [
        a_worker("able", "node", "python"),
        a_worker("other", "node"),
        a_worker("draining", state=Worker.DRAINING),
        a_worker("lost", state=Worker.LOST),
        a_worker("process", keeps_warm=False),
    ]
    shares = spread([wanted("f", 3), wanted("g", 2, "go")], workers)
    assert numbers(shares, "f") == {"able": 3}
    assert numbers(shares, "g") == {}
    assert shares.keys() == {"able", "other"}


def test_a_worker_that_comes_moves_little_whatever_the_order() -> None:
    functions = [wanted(f"f{n}", 1) for n in range(100)]
    three = [a_worker(f"w{n}") for n in range(3)]
    before, after = spread(functions, three[::-1]), spread(functions, [*three, a_worker("new")])
    assert spread(functions, three) == before
    for function in functions:
        was, now = numbers(before, function.function_id), numbers(after, function.function_id)
        assert now in (was, {"new": 1})
