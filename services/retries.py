"""A function's retry policy, as messages and as the tables keep it."""

from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from faas.v1.function_pb2 import RetryPolicy
from faas.v1.invocation_pb2 import Invocation

DEFAULT_INITIAL_BACKOFF_MS = 1000
DEFAULT_MAX_BACKOFF_MS = 300_000
# What may be otherwise the next time.
DEFAULT_RETRY_ON = ("FUNCTION_ERROR", "FUNCTION_CRASHED", "OUT_OF_MEMORY", "TIMEOUT")


def policy_to_row(policy: RetryPolicy) -> dict[str, Any]:
    """The policy with its defaults filled in, as JSON."""
    initial_ms = _ms(policy, "initial_backoff", DEFAULT_INITIAL_BACKOFF_MS)
    return {
        "max_attempts": policy.max_attempts,
        "initial_backoff_ms": initial_ms,
        "max_backoff_ms": max(initial_ms, _ms(policy, "max_backoff", DEFAULT_MAX_BACKOFF_MS)),
        "retry_on": [Invocation.ErrorCode.Name(code) for code in sorted(policy.retry_on)]
        or list(DEFAULT_RETRY_ON),
        "retry_lost_worker": policy.retry_lost_worker
        if policy.HasField("retry_lost_worker")
        else True,
    }


def policy_to_proto(row: dict[str, Any]) -> RetryPolicy:
    """What `policy_to_row` made of it."""
    return RetryPolicy(
        max_attempts=row["max_attempts"],
        initial_backoff=_duration(row["initial_backoff_ms"]),
        max_backoff=_duration(row["max_backoff_ms"]),
        retry_on=[Invocation.ErrorCode.Value(name) for name in row["retry_on"]],
        retry_lost_worker=row["retry_lost_worker"],
    )


def _ms(policy: RetryPolicy, name: str, default: int) -> int:
    if not policy.HasField(name):  # type: ignore[arg-type]
        return default
    duration: Duration = getattr(policy, name)
    return round(duration.ToNanoseconds() / 1e6)


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(milliseconds=milliseconds))
    return duration
