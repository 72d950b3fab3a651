"""The workers, as their heartbeats describe them: the table `workers`."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from faas.v1.worker_pb2 import Worker
from services import ids
from services.errors import WorkerNotFound
from services.invocations.database import Database

_BEAT = """
INSERT INTO workers AS known (boot_id, worker_id, description, seen_at)
VALUES (%(boot)s, %(worker)s, %(description)s, clock_timestamp())
ON CONFLICT (boot_id) DO UPDATE SET beat = known.beat + 1, description = excluded.description,
  seen_at = excluded.seen_at
WHERE known.lost_at IS NULL
RETURNING drain"""

# Of each worker its newest boot.
_NEWEST = """
SELECT DISTINCT ON (worker_id) worker_id, boot_id, description, drain, seen_at, lost_at
FROM workers
WHERE (lost_at IS NULL OR lost_at > clock_timestamp() - %(kept_s)s * interval '1 second')
  AND (%(worker)s::uuid IS NULL OR worker_id = %(worker)s)
ORDER BY worker_id, seen_at DESC"""


@dataclass(frozen=True)
class _Row:
    worker_id: UUID
    boot_id: UUID
    description: bytes
    drain: bool
    seen_at: datetime
    lost_at: datetime | None


class Workers:
    """The rows of `workers`."""

    def __init__(self, database: Database, *, lost_kept_s: float) -> None:
        """Show a lost worker for `lost_kept_s`."""
        self._database = database
        self._lost_kept_s = lost_kept_s

    async def beat(self, worker: UUID, boot: UUID, description: Worker) -> bool | None:
        """Note a heartbeat. Whether it shall drain; None where the boot was declared lost."""
        parameters = {
            "boot": boot,
            "worker": worker,
            "description": description.SerializeToString(),
        }
        rows = await self._database.fetch(_BEAT, parameters)
        return rows[0]["drain"] if rows else None

    async def is_boot_of(self, boot: UUID, worker: UUID) -> bool:
        """Whether that start was one of this worker."""
        query = "SELECT 1 FROM workers WHERE boot_id = %(boot)s AND worker_id = %(worker)s"
        return bool(await self._database.fetch(query, {"boot": boot, "worker": worker}))

    async def leave(self, boot: UUID) -> None:
        """Forget a boot that holds nothing any more."""
        query = """DELETE FROM workers WHERE boot_id = %(boot)s AND NOT EXISTS
          (SELECT 1 FROM invocations WHERE status = 'running' AND worker_boot = %(boot)s)"""
        await self._database.fetch(query, {"boot": boot})

    async def all(self, worker: UUID | None = None) -> list[Worker]:
        """The workers known, ordered by id; `worker` alone if given."""
        parameters = {"kept_s": self._lost_kept_s, "worker": worker}
        rows = await self._database.fetch(_NEWEST, parameters, class_row(_Row))
        return [_to_proto(row) for row in rows]

    async def get(self, worker_id: str) -> Worker:
        """One worker. Raises WorkerNotFound."""
        uuid = ids.parse(ids.WORKER, worker_id)
        found = [] if uuid is None else await self.all(uuid)
        if not found:
            raise WorkerNotFound(f"There is no worker {worker_id}.")
        return found[0]

    async def set_drain(self, worker_id: str, drain: bool) -> Worker:
        """Note what is wanted of a living worker. Raises WorkerNotFound."""
        query = """UPDATE workers SET drain = %(drain)s
          WHERE worker_id = %(worker)s AND lost_at IS NULL"""
        worker = ids.parse(ids.WORKER, worker_id)
        if not await self._database.execute(query, {"drain": drain, "worker": worker}):
            raise WorkerNotFound(f"No living worker is {worker_id}.")
        return await self.get(worker_id)


def _to_proto(row: _Row) -> Worker:
    worker = Worker.FromString(row.description)
    worker.last_seen_at.FromDatetime(row.seen_at)
    if row.lost_at is not None:
        worker.state = Worker.LOST
    elif row.drain and worker.state == Worker.READY:
        # Told, and not yet heard of.
        worker.state = Worker.DRAINING
    return worker
