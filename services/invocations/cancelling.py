"""Cancelling: one statement that wins or the verdict does; the worker is told after it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from faas.v1.execution_pb2 import Directive
from services import ids
from services.invocations.database import Database
from services.invocations.feeder import Feeder
from services.invocations.records import Record, Records
from services.invocations.reports import Desk
from services.invocations.waiters import Waiters

MOST_AT_ONCE = 1000

_UNENDED = """
SELECT id FROM invocations
WHERE function_id = %(function_id)s AND status = ANY(%(statuses)s)
  AND (%(before)s::timestamptz IS NULL OR created_at < %(before)s)
ORDER BY id LIMIT %(limit)s"""


class Cancelling:
    """Ends invocations that have not ended."""

    def __init__(
        self,
        database: Database,
        records: Records,
        waiters: Waiters,
        feeder: Feeder,
        desk: Desk,
    ) -> None:
        """Change `records`, tell who waits and the workers at `desk`."""
        self._database = database
        self._records = records
        self._waiters = waiters
        self._feeder = feeder
        self._desk = desk

    async def cancel(self, invocation_ids: Sequence[UUID]) -> list[Record]:
        """Cancel those of them that have not ended; returns these."""
        cancelled = await self._records.cancel(list(invocation_ids))
        for record, boot in cancelled:
            if boot is not None and record.worker_id is not None:
                self._tell(record, record.worker_id, boot)
        records = [record for record, _ in cancelled]
        self._waiters.ended(records)
        if any(record.laned for record in records):
            self._feeder.wake()
        return records

    async def cancel_of(
        self, function_id: UUID, statuses: Sequence[str], before: datetime | None
    ) -> tuple[int, bool]:
        """Cancel a function's, oldest first; how many, and whether there may be more."""
        parameters = {
            "function_id": function_id,
            "statuses": list(statuses),
            "before": before,
            "limit": MOST_AT_ONCE,
        }
        rows = await self._database.fetch(_UNENDED, parameters)
        cancelled = await self.cancel([row["id"] for row in rows]) if rows else []
        return len(cancelled), len(rows) == MOST_AT_ONCE

    def _tell(self, record: Record, worker: UUID, boot: UUID) -> None:
        # A hint: the answer to its next heartbeat says the same, at whatever replica.
        session = self._desk.sessions.get(worker)
        if session is not None and session.boot == boot:
            key = ids.show(ids.INVOCATION, record.id)
            cancel = Directive.Cancel(invocation_id=key, attempt=record.attempt)
            session.tell(Directive(cancel=cancel))
            session.slots.held.discard(record.id)
