"""The account of one invocation, told from its row and those of its attempts.

What is known of a wait is its two ends; of causes what the rows still say. Nothing
here guesses: where a wait had one of several causes, all are named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services import ids
from services.invocations.attempts import Attempt
from services.invocations.database import Database
from services.invocations.records import Record

# A wait that is shorter needs no explanation.
NOTABLE = timedelta(milliseconds=200)

_STATE = """
SELECT offered_at, declines, laned, nullif(expires_at, 'infinity') AS expires_at, retry_policy,
  lanes.paused_at, lanes.max_concurrency
FROM invocations LEFT JOIN lanes USING (function_id) WHERE id = %(id)s"""

_OUTCOMES = {
    "completed": "It completed",
    "failed": "It failed",
    "timed_out": "It was still running at its timeout, and was killed",
    "cancelled": "It was cancelled, and killed",
    "lost": "Its worker was lost",
    "abandoned": "Its worker gave it back",
}


@dataclass(frozen=True)
class State:
    """What only the row of an unfinished invocation says."""

    offered_at: datetime | None
    declines: int
    laned: bool
    expires_at: datetime | None
    retry_policy: dict[str, Any] | None
    paused_at: datetime | None
    max_concurrency: int | None


@dataclass(frozen=True)
class Step:
    """One thing that happened."""

    time: datetime
    what: str
    why: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class Account:
    """All that happened, in order."""

    summary: str
    steps: list[Step]
    attempts: list[Attempt]

    def seconds(self, metric: str) -> float | None:
        """The sum of a metric over all starts; None where none has it."""
        known = [a.metrics[metric] for a in self.attempts if a.metrics and metric in a.metrics]
        return float(sum(known)) if known else None


class Accounts:
    """Tells what happened."""

    def __init__(self, database: Database) -> None:
        """Read what the record alone does not say from `database`."""
        self._database = database

    async def of(self, record: Record, attempts: list[Attempt]) -> Account:
        """The account of `record`, whose starts that are over are `attempts`."""
        rows = await self._database.fetch(_STATE, {"id": record.id})
        return tell(record, attempts, State(**rows[0]))


def tell(record: Record, attempts: list[Attempt], state: State) -> Account:
    """The account, from the rows."""
    steps = [_accepted(record)]
    for attempt in attempts:
        steps += _waited(record, attempt)
        steps += _ran(attempt)
    steps += _rest(record, attempts, state)
    return Account(_summary(record), steps, attempts)


def _accepted(record: Record) -> Step:
    version = f"version {record.function_version} of {record.function_name}"
    what = f"Accepted for {version}, with {len(record.payload)} bytes of {record.payload_type}."
    origins = {"replays": record.replay_of, "takes up again": record.redrive_of}
    why = [f"It {how} {ids.show(ids.INVOCATION, of)}." for how, of in origins.items() if of]
    if record.schedule_id:
        why.append(f"Fired by {ids.show(ids.SCHEDULE, record.schedule_id)}.")
    elif record.request_id:
        why.append(f"Asked for under the request id {record.request_id!r}.")
    return Step(record.created_at, what, " ".join(why))


def _waited(record: Record, attempt: Attempt) -> Iterator[Step]:
    number = attempt.attempt
    if attempt.due_at is not None and attempt.due_at - record.created_at > NOTABLE:
        why = "It was not to start before." if number == 1 else "The wait before another start."
        yield Step(attempt.due_at, "Due.", why, number)
    if attempt.offered_at is not None:
        late = attempt.due_at is not None and attempt.offered_at - attempt.due_at > NOTABLE
        why = (
            "Until then there was no room in the queue, its function was paused or at its"
            " limit, or a worker had declined it."
        )
        yield Step(attempt.offered_at, "Put into the queue.", why if late else "", number)
    if attempt.started_at is not None:
        since = attempt.offered_at or attempt.due_at or record.created_at
        late = attempt.started_at - since > NOTABLE
        why = "Until then no worker had a free place, or it was getting the code ready."
        worker = f" to {ids.show(ids.WORKER, attempt.worker_id)}" if attempt.worker_id else ""
        what = f"Start {number} granted{worker}."
        yield Step(attempt.started_at, what, why if late else "", number)


def _ran(attempt: Attempt) -> Iterator[Step]:
    metrics = attempt.metrics or {}
    if attempt.started_at is not None and "startup_s" in metrics and "run_s" in metrics:
        handed = attempt.started_at + timedelta(seconds=max(0.0, metrics["startup_s"]))
        if handed <= attempt.ended_at:
            kind = str(metrics.get("start_kind", "")).replace("START_KIND_UNSPECIFIED", "").lower()
            sandbox = f"a {kind} sandbox" if kind else "a sandbox"
            image = f" of {attempt.runtime_image}" if attempt.runtime_image else ""
            what = f"Handed to the function's code, in {sandbox}{image}."
            yield Step(handed, what, "", attempt.attempt)
    error = attempt.error or {}
    why = ": ".join(filter(None, (error.get("code"), error.get("type"), error.get("message"))))
    used = []
    if "cpu_time_s" in metrics:
        used.append(f"{metrics['cpu_time_s']:.3f} s of CPU")
    if "peak_memory_bytes" in metrics:
        used.append(f"{metrics['peak_memory_bytes'] / 2**20:.0f} MiB of memory at most")
    what = _OUTCOMES[attempt.outcome] + (f", having used {' and '.join(used)}." if used else ".")
    yield Step(attempt.ended_at, what, why, attempt.attempt)


def _rest(record: Record, attempts: list[Attempt], state: State) -> Iterator[Step]:
    """Where it is now, or the end that no attempt tells."""
    told = attempts[-1].ended_at if attempts else None
    if record.status == "pending":
        yield _pending(record, attempts, state)
    elif record.status == "running" and record.started_at is not None:
        worker = f" to {ids.show(ids.WORKER, record.worker_id)}" if record.worker_id else ""
        what = f"Start {record.attempt} granted{worker}; it is running."
        yield Step(record.started_at, what, "", record.attempt)
    elif record.completed_at is not None:
        error = record.error or {}
        if record.status == "dead_lettered":
            why = f"{error.get('code', '')}: {error.get('message', '')}"
            yield Step(record.completed_at, "The platform gave it up.", why, record.attempt)
        elif told is None or record.status == "cancelled" != attempts[-1].outcome:
            yield Step(record.completed_at, f"{record.status.upper()}.", error.get("message", ""))
        elif record.status in ("failed", "timed_out") and state.retry_policy:
            why = "Its retry policy does not name this failure, or allows no further start."
            yield Step(record.completed_at, "Not started again.", why, record.attempt)


def _pending(record: Record, attempts: list[Attempt], state: State) -> Step:
    causes = []
    if state.paused_at is not None:
        causes.append(f"Its function is paused since {state.paused_at.isoformat()}.")
    if state.max_concurrency is not None:
        causes.append(f"Its function runs at most {state.max_concurrency} at once.")
    if state.declines:
        causes.append(f"Workers have declined it {state.declines} times: they cannot run it.")
    if attempts:
        causes.append("It is started again after what came before.")
    if not attempts and state.expires_at is not None:
        causes.append(f"Unless it is started by {state.expires_at.isoformat()} it is given up.")
    if state.offered_at is not None:
        return Step(state.offered_at, "In the queue: waits for a worker.", " ".join(causes))
    return Step(record.due_at, "Waits from this moment to be queued.", " ".join(causes))


def _summary(record: Record) -> str:
    starts = f"{record.attempt} start{'' if record.attempt == 1 else 's'}"
    status = record.status.upper()
    if record.completed_at is None:
        return f"{status}, after {starts}."
    took = (record.completed_at - record.created_at).total_seconds()
    code = f" ({record.error['code']})" if record.error else ""
    return f"{status}{code} after {took:.3f} s and {starts}."
