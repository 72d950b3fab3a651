"""The RPCs that tell of many invocations, or much of one."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from faas.json_values import to_value
from faas.v1.explanation_pb2 import ExplainInvocationRequest, Explanation
from faas.v1.invocation_service_pb2 import (
    GetInvocationPayloadRequest,
    GetInvocationResultRequest,
)
from faas.v1.replay_pb2 import (
    CompareInvocationsRequest,
    Comparison,
    Replay,
    ReplayInvocationRequest,
)
from faas.v1.stats_pb2 import GetStatsRequest
from faas.v1.stats_pb2 import Stats as StatsMessage
from services import ids
from services.errors import ResultNotFound
from services.invocations.acceptance import Acceptance
from services.invocations.accounts import Account, Accounts
from services.invocations.blobs import Blob, Blobs
from services.invocations.calls import content_headers, in_parts
from services.invocations.comparison import ABSENT, Difference, compare
from services.invocations.messages import attempt_to_proto, to_proto
from services.invocations.records import Record, Records
from services.invocations.replays import Replays
from services.invocations.requests import invocation_key, waiting_s
from services.invocations.stats import PHASES, Counts, Stats
from services.server import Call

DEFAULT_WINDOW = timedelta(hours=1)


class InsightServicer:
    """The part of faas.v1.InvocationService that tells."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        records: Records,
        counts: Counts,
        replays: Replays,
        accounts: Accounts,
        blobs: Blobs,
    ) -> None:
        """Serve by these."""
        self._functions = acceptance
        self._rows = records
        self._counts = counts
        self._replays = replays
        self._accounts = accounts
        self._blobs = blobs

    async def GetStats(self, request: GetStatsRequest, call: Call) -> StatsMessage:
        """Counts and latencies over a window."""
        function_id = await self._functions.function_id(request.function_id, call)
        window = request.window.ToTimedelta() if request.HasField("window") else DEFAULT_WINDOW
        stats = await self._counts.stats(window, datetime.now(UTC), function_id)
        return stats_to_proto(stats)

    async def ReplayInvocation(self, request: ReplayInvocationRequest, call: Call) -> Replay:
        """Invoke again what has ended."""
        key = invocation_key(request.invocation_id)
        version = request.function_version if request.HasField("function_version") else None
        source, record = await self._replays.replay(key, version, waiting_s(request, call), call)
        replay = Replay(invocation=to_proto(record))
        if record.ended:
            replay.comparison.CopyFrom(comparison_to_proto(source, *compare(source, record)))
        return replay

    async def CompareInvocations(
        self, request: CompareInvocationsRequest, _call: Call
    ) -> Comparison:
        """How two ends differ."""
        key = invocation_key(request.invocation_id)
        # `with` is a word of Python's.
        other = getattr(request, "with")
        other_key = invocation_key(other, "with") if other else None
        return comparison_to_proto(*await self._replays.comparison(key, other_key))

    async def GetInvocationPayload(
        self, request: GetInvocationPayloadRequest, call: Call
    ) -> AsyncIterator[HttpBody]:
        """The payload's bytes."""
        record = await self._replays.find(invocation_key(request.invocation_id))
        blob = Blob.of(record.payload_blob)
        call.answer_metadata.update(content_headers(blob))
        parts = in_parts(self._blobs, record.payload_type, record.payload, blob)
        async with aclosing(parts):  # type: ignore[type-var]
            async for part in parts:
                yield part

    async def GetInvocationResult(
        self, request: GetInvocationResultRequest, call: Call
    ) -> AsyncIterator[HttpBody]:
        """The result's bytes."""
        record = await self._replays.ended(invocation_key(request.invocation_id))
        blob = Blob.of(record.result_blob)
        if record.result is None and blob is None:
            how = {"status": record.status.upper(), "code": (record.error or {}).get("code", "")}
            text = f"{request.invocation_id} has no result: it is {how['status']}."
            raise ResultNotFound(text, metadata=how)
        call.answer_metadata.update(content_headers(blob))
        parts = in_parts(self._blobs, record.result_type, record.result or b"", blob)
        async with aclosing(parts):  # type: ignore[type-var]
            async for part in parts:
                yield part

    async def ExplainInvocation(
        self, request: ExplainInvocationRequest, _call: Call
    ) -> Explanation:
        """The account of one."""
        record = await self._replays.find(invocation_key(request.invocation_id))
        attempts = await self._rows.attempts.of(record.id)
        return account_to_proto(record, await self._accounts.of(record, attempts))


def stats_to_proto(stats: Stats) -> StatsMessage:
    """Statistics as the API shows them."""
    shown = StatsMessage(running=stats.running, queued=stats.queued, delayed=stats.delayed)
    shown.start.FromDatetime(stats.start)
    shown.end.FromDatetime(stats.end)
    for status, count in sorted(stats.counts.items()):
        shown.counts.add(status=status.upper(), count=count)
    for phase in PHASES:
        if phase in stats.latencies:
            p50, p90, p99 = (_duration(stats.percentile(phase, p)) for p in (0.5, 0.9, 0.99))
            count = stats.latencies[phase].total()
            shown.latencies.add(phase=phase, count=count, p50=p50, p90=p90, p99=p99)
    if stats.oldest_s is not None:
        shown.oldest_queued.CopyFrom(_duration(stats.oldest_s))
    return shown


def comparison_to_proto(
    other: Record, differences: list[Difference], truncated: bool
) -> Comparison:
    """Differences from another record as the API shows them."""
    shown = Comparison(equal=not differences, truncated=truncated)
    setattr(shown, "with", ids.show(ids.INVOCATION, other.id))
    for difference in differences:
        shown.differences.add(
            path=difference.path, before=_value(difference.before), after=_value(difference.after)
        )
    return shown


def account_to_proto(record: Record, account: Account) -> Explanation:
    """An account as the API shows it."""
    shown = Explanation(
        invocation_id=ids.show(ids.INVOCATION, record.id),
        status=to_proto(record, listed=True).status,
        summary=account.summary,
        attempts=map(attempt_to_proto, account.attempts),
    )
    before = record.created_at
    for step in account.steps:
        added = shown.steps.add(what=step.what, why=step.why, attempt=step.attempt)
        added.time.FromDatetime(step.time)
        added.after.FromTimedelta(step.time - before)
        before = step.time
    shown_as = {"queued": "waiting"}
    for metric in ("queued", "assigned", "startup", "load", "run", "report", "cpu_time"):
        if (seconds := account.seconds(f"{metric}_s")) is not None:
            getattr(shown, shown_as.get(metric, metric)).CopyFrom(_duration(seconds))
    return shown


def _value(document: object) -> Value | None:
    return None if document is ABSENT else to_value(document)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
