"""Invoking again what has ended, and comparing how the two have ended."""

from uuid import UUID

from services import ids
from services.errors import InvalidField, InvocationNotFound, InvocationUnfinished
from services.invocations.acceptance import Acceptance
from services.invocations.comparison import Difference, compare
from services.invocations.records import Record, Records
from services.invocations.waiters import Waiters
from services.server import Call


class Replays:
    """Replays, linked to what they replay."""

    def __init__(self, acceptance: Acceptance, records: Records, waiters: Waiters) -> None:
        """Accept by `acceptance`, wait by `waiters`, read `records`."""
        self._acceptance = acceptance
        self._records = records
        self._waiters = waiters

    async def replay(
        self, source_id: UUID, version: int | None, wait_s: float, call: Call
    ) -> tuple[Record, Record]:
        """What is replayed and the new record, as it is when it or the wait has ended.

        Without a `version` it is the same one; 0 is the latest. Raises
        InvocationNotFound, InvocationUnfinished and what accepting raises.
        """
        source = await self.ended(source_id)
        wanted = source.function_version if version is None else version
        key = ids.new_uuid()
        async with self._waiters.waiter(key) as waiter:
            record = await self._acceptance.accept_replay(key, source, wanted, call)
            if record.id == key and wait_s > 0:
                record = await waiter.wait(wait_s) or await self.find(key)
        return source, record

    async def comparison(
        self, invocation_id: UUID, other_id: UUID | None
    ) -> tuple[Record, list[Difference], bool]:
        """The other record, the differences of the two, and whether there are more.

        Raises InvocationNotFound, InvocationUnfinished, InvalidField.
        """
        record = await self.ended(invocation_id)
        other_id = other_id or record.replay_of or record.redrive_of
        if other_id is None:
            raise InvalidField.of("with", "is needed: this invocation replays no other")
        other = await self.ended(other_id)
        return (other, *compare(other, record))

    async def ended(self, key: UUID) -> Record:
        """A record that has ended. Raises InvocationNotFound, InvocationUnfinished."""
        record = await self.find(key)
        if not record.ended:
            raise InvocationUnfinished(f"{ids.show(ids.INVOCATION, key)} has not ended yet.")
        return record

    async def find(self, key: UUID) -> Record:
        """One record. Raises InvocationNotFound."""
        record = await self._records.find(key)
        if record is None:
            raise InvocationNotFound(f"There is no invocation {ids.show(ids.INVOCATION, key)}.")
        return record
