"""The RPCs that tell of many invocations, or much of one."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from faas.v1.stats_pb2 import GetStatsRequest
from faas.v1.stats_pb2 import Stats as StatsMessage
from services.invocations.acceptance import Acceptance
from services.invocations.stats import PHASES, Counts, Stats
from services.server import Call

DEFAULT_WINDOW = timedelta(hours=1)


class InsightServicer:
    """The part of faas.v1.InvocationService that tells."""

    def __init__(self, *, acceptance: Acceptance, counts: Counts) -> None:
        """Serve by these."""
        self._functions = acceptance
        self._counts = counts

    async def GetStats(self, request: GetStatsRequest, call: Call) -> StatsMessage:
        """Counts and latencies over a window."""
        function_id = await self._functions.function_id(request.function_id, call)
        window = request.window.ToTimedelta() if request.HasField("window") else DEFAULT_WINDOW
        stats = await self._counts.stats(window, datetime.now(UTC), function_id)
        return stats_to_proto(stats)


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


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
