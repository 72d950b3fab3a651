"""The record's life against a model of it: any order of grants, verdicts, losses,
cancellations and redrives, alone and at once, on real PostgreSQL."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from services.ids import new_uuid
from services.invocations.database import Database
from services.invocations.records import TERMINAL, Ending, Record, Records
from tests.integration.invocations import LOST, a_boot, accepted

POLICY = {
    "max_attempts": 3,
    "initial_backoff_ms": 0,
    "max_backoff_ms": 0,
    "retry_on": ["FUNCTION_ERROR"],
    "retry_lost_worker": True,
}
ENDINGS = {
    "completed": Ending("completed", result=b"1"),
    "failed": Ending("failed", error={"code": "FUNCTION_ERROR", "message": ""}),
    "timed_out": Ending("timed_out", error={"code": "TIMEOUT", "message": ""}),
}
BOOTS = 3


@dataclass
class Model:
    """What the record must be."""

    max_attempts: int
    status: str = "pending"
    attempt: int = 0
    boot: int | None = None
    """Which boot holds the grant; kept by a loss, cleared by a verdict."""
    losses: int = 0
    failures: int = 0
    outcomes: dict[int, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def grant(self, boot: int) -> bool:
        if self.status != "pending" or self.attempt >= self.max_attempts + 1:
            return False
        self.status, self.boot = "running", boot
        self.attempt += 1
        return True

    def conclude(self, attempt: int, boot: int, status: str) -> bool:
        if self.ended or attempt != self.attempt or self.boot != boot:
            return False
        self.outcomes[attempt] = status
        self.failures += status != "completed"
        again = (
            status == "failed"
            and self.failures < self.max_attempts
            and self.attempt < self.max_attempts + 1
        )
        self.status, self.boot = "pending" if again else status, None
        return True

    def lose(self, boot: int) -> bool:
        if self.status != "running" or self.boot != boot:
            return False
        stays = self.attempt < self.max_attempts + 1 and self.losses == 0
        self.losses += 1
        self.outcomes.setdefault(self.attempt, "lost")
        self.status = "pending" if stays else "dead_lettered"
        return True

    def cancel(self) -> bool:
        if self.ended:
            return False
        if self.status == "running":
            self.outcomes.setdefault(self.attempt, "cancelled")
        self.status, self.boot = "cancelled", None
        return True


class Lifecycle(RuleBasedStateMachine):
    """One database for all examples; each has records of its own."""

    runner: ClassVar[asyncio.Runner]
    database: ClassVar[Database]

    invocations = Bundle("invocations")

    def __init__(self) -> None:
        super().__init__()
        self.records = Records(self.database, lost_backoff_s=0)
        self.models: dict[UUID, Model] = {}
        self.ends: dict[UUID, Record] = {}
        self.boots = [self.run(a_boot(self.database)) for _ in range(BOOTS)]

    def run(self, work: Awaitable[Any]) -> Any:
        return self.runner.run(_as_coroutine(work))

    @rule(target=invocations, retried=st.booleans())
    def accept(self, retried: bool) -> UUID:
        record = self.run(accepted(self.records, retry_policy=POLICY if retried else None))
        self.models[record.id] = Model(3 if retried else 1)
        return record.id

    @rule(target=invocations, source=invocations)
    def redrive(self, source: UUID) -> UUID:
        """A new record, linked; the ended one stays as it is."""
        record = self.run(accepted(self.records, redrive_of=source))
        self.models[record.id] = Model(1)
        return record.id

    @rule(key=invocations, boot=st.integers(0, BOOTS - 1))
    def grant(self, key: UUID, boot: int) -> None:
        granted = self.run(self.records.grant(key, new_uuid(), self.boots[boot], uuid4()))
        assert (granted is not None) == self.models[key].grant(boot)

    @rule(
        key=invocations,
        boot=st.integers(0, BOOTS - 1),
        behind=st.integers(0, 1),
        status=st.sampled_from(sorted(ENDINGS)),
    )
    def conclude(self, key: UUID, boot: int, behind: int, status: str) -> None:
        attempt = self.models[key].attempt - behind
        told = self.run(self.records.conclude(key, attempt, self.boots[boot], ENDINGS[status]))
        assert (told is not None) == self.models[key].conclude(attempt, boot, status)

    @rule(key=invocations, status=st.sampled_from(sorted(ENDINGS)))
    def conclude_by_its_holder(self, key: UUID, status: str) -> None:
        boot = self.models[key].boot
        if boot is not None:
            self.conclude(key, boot, 0, status)

    @rule(key=invocations, boot=st.integers(0, BOOTS - 1))
    def lose(self, key: UUID, boot: int) -> None:
        lost = self.run(self.records.lose(self.boots[boot], [key], LOST))
        assert bool(lost) == self.models[key].lose(boot)

    @rule(key=invocations)
    def start_and_lose(self, key: UUID) -> None:
        self.grant(key, 0)
        boot = self.models[key].boot
        if boot is not None:
            self.lose(key, boot)

    @rule(key=invocations)
    def cancel(self, key: UUID) -> None:
        assert bool(self.run(self.records.cancel([key]))) == self.models[key].cancel()

    @rule(key=invocations, status=st.sampled_from(sorted(ENDINGS)))
    def all_at_once(self, key: UUID, status: str) -> None:
        """A verdict, its repetition by another replica, a loss, a grant and a cancellation."""
        model = self.models[key]
        holder = self.boots[model.boot if model.boot is not None else 0]
        other = Records(self.database, lost_backoff_s=0)

        async def race() -> list[Any]:
            ending = ENDINGS[status]
            return await asyncio.gather(
                self.records.conclude(key, model.attempt, holder, ending),
                other.conclude(key, model.attempt, holder, ending),
                other.lose(holder, [key], LOST),
                self.records.grant(key, new_uuid(), self.boots[1], uuid4()),
                self.records.cancel([key]),
            )

        told, again, _, _, cancelled = self.run(race())
        assert told is None or again is None
        # One of them was the last; a cancellation finds whatever has not ended before it.
        found = self.run(self.records.find(key))
        assert found.ended
        assert bool(cancelled) == (found.status == "cancelled" and not model.ended)
        outcomes = self.run(self.records.attempts.of(key))
        assert len({row.attempt for row in outcomes}) == len(outcomes) == found.attempt
        model.status, model.attempt, model.boot = found.status, found.attempt, None
        model.outcomes = {row.attempt: row.outcome for row in outcomes}

    @invariant()
    def every_record_is_as_its_model(self) -> None:
        found = self.run(self.records.find_all(list(self.models))) if self.models else []
        for record in found:
            model = self.models[record.id]
            assert (record.status, record.attempt) == (model.status, model.attempt)
            if record.ended:
                # The first that was seen of its end is all that is ever seen.
                assert self.ends.setdefault(record.id, record) == record
        assert len(found) == len(self.models)

    def teardown(self) -> None:
        for key, model in self.models.items():
            rows = self.run(self.records.attempts.of(key))
            assert {row.attempt: row.outcome for row in rows} == model.outcomes
        assert self.run(self.database.fetch("SELECT * FROM guard_log")) == []


async def _as_coroutine(work: Awaitable[Any]) -> Any:
    return await work


def test_every_record_lives_as_its_model(database_url: str) -> None:
    with asyncio.Runner() as runner:

        async def opened() -> Database:
            database = Database(database_url, connections=8)
            await database.open()
            return database

        Lifecycle.runner, Lifecycle.database = runner, runner.run(opened())
        try:
            run_machine(
                Lifecycle,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(Lifecycle.database.close())
