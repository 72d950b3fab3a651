"""What functions printed, in chunks as workers send them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from psycopg.types.json import Jsonb

from faas.v1.invocation_pb2 import LogLine
from services.invocations.database import Database
from services.invocations.records import OnChange, no_change

# Only for an attempt that its sender holds; a chunk that comes again is kept once. All
# lines are one value: in an array each would be escaped once more, quote by quote.
_APPEND = """
INSERT INTO invocation_logs (invocation_id, attempt, sequence, lines)
SELECT new.* FROM ROWS FROM (unnest(%(ids)s::uuid[]), unnest(%(attempts)s::int[]),
  unnest(%(sequences)s::int[]), jsonb_array_elements(%(lines)s))
  AS new (id, attempt, sequence, lines)
JOIN invocations AS held ON held.id = new.id AND held.attempt = new.attempt
  AND held.worker_boot = %(boot)s
ON CONFLICT DO NOTHING"""

_READ = """
SELECT attempt, sequence, lines FROM invocation_logs
WHERE invocation_id = %(id)s AND (attempt, sequence) >= (%(attempt)s, %(sequence)s)
ORDER BY attempt, sequence LIMIT %(limit)s"""

# Of each invocation what comes from a place on, in one look at the index each.
_READ_MANY = """
SELECT wanted.id, found.attempt, found.sequence, found.lines
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(sequences)s::int[])
  AS wanted (id, attempt, sequence)
CROSS JOIN LATERAL (SELECT attempt, sequence, lines FROM invocation_logs
  WHERE invocation_id = wanted.id
    AND (attempt, sequence) >= (wanted.attempt, wanted.sequence)
  ORDER BY attempt, sequence LIMIT %(limit)s) AS found
ORDER BY wanted.id, found.attempt, found.sequence"""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Chunks that are read at once; a chunk has a line at least.
CHUNKS = 256
MOST_CHUNKS = 64
"""Of one invocation, where chunks of many are read together."""
# Attempts whose size is known here. Of one that was lost nobody says that it is over.
COUNTED = 10_000


@dataclass(frozen=True, order=True)
class Place:
    """A chunk's, among those of its invocation."""

    attempt: int = 0
    sequence: int = 0

    @property
    def next(self) -> "Place":
        """Where the following chunk is, if there is one."""
        return Place(self.attempt, self.sequence + 1)


@dataclass(frozen=True)
class Chunk:
    """Lines of one attempt, the `sequence`th part of them."""

    invocation_id: UUID
    attempt: int
    sequence: int
    lines: Sequence[LogLine]

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.attempt, self.sequence)

    @cached_property
    def size(self) -> int:
        """Its characters, newlines included."""
        return sum(len(line.text) + 1 for line in self.lines)


@dataclass(frozen=True, order=True)
class Position:
    """Where a page begins: a line within a chunk."""

    attempt: int = 0
    sequence: int = 0
    line: int = 0


@dataclass
class _Counted:
    """What one attempt has sent, each chunk once."""

    total: int = 0
    sizes: dict[int, int] = field(default_factory=dict)


class Logs:
    """The rows of `invocation_logs`."""

    def __init__(
        self, database: Database, *, max_bytes: int, on_change: OnChange = no_change
    ) -> None:
        """Keep at most about `max_bytes` an attempt, whatever a worker sends.

        `on_change` is called with the ids of the invocations that have new lines.
        """
        self._database = database
        self._on_change = on_change
        self._max_bytes = max_bytes
        self._counted: dict[tuple[UUID, int], _Counted] = {}
        """Attempts that are not over; who has sent something last is last."""

    async def append(self, chunks: Iterable[Chunk], boot: UUID) -> None:
        """Keep chunks that `boot` sent of what it runs; those of others are dropped."""
        kept = [chunk for chunk in chunks if self._fits(chunk)]
        if not kept:
            return
        parameters = {
            "ids": [chunk.invocation_id for chunk in kept],
            "attempts": [chunk.attempt for chunk in kept],
            "sequences": [chunk.sequence for chunk in kept],
            "lines": Jsonb([_stored(chunk.lines) for chunk in kept]),
            "boot": boot,
        }
        await self._database.fetch(_APPEND, parameters)
        self._on_change({chunk.invocation_id for chunk in kept})

    def forget(self, invocation_id: UUID, attempt: int) -> None:
        """Stop counting what an attempt sends: it has ended."""
        self._counted.pop((invocation_id, attempt), None)

    async def read(
        self, invocation_id: UUID, start: Position, limit: int
    ) -> tuple[list[LogLine], Position | None]:
        """Up to `limit` lines from `start` on, and where the next page begins."""
        lines: list[LogLine] = []
        while True:
            parameters = {
                "id": invocation_id,
                "attempt": start.attempt,
                "sequence": start.sequence,
                "limit": CHUNKS,
            }
            rows = await self._database.fetch(_READ, parameters)
            for row in rows:
                at = (row["attempt"], row["sequence"])
                skip = start.line if at == (start.attempt, start.sequence) else 0
                for number, stored in enumerate(row["lines"][skip:], start=skip):
                    if len(lines) == limit:
                        return lines, Position(*at, number)
                    lines.append(_shown(row["attempt"], *stored))
            if len(rows) < CHUNKS:
                return lines, None
            start = Position(rows[-1]["attempt"], rows[-1]["sequence"] + 1)

    async def chunks(self, places: Mapping[UUID, Place]) -> dict[UUID, list[Chunk]]:
        """Of each invocation up to MOST_CHUNKS chunks from its place on, in order."""
        parameters = {
            "ids": list(places),
            "attempts": [place.attempt for place in places.values()],
            "sequences": [place.sequence for place in places.values()],
            "limit": MOST_CHUNKS,
        }
        found: dict[UUID, list[Chunk]] = {}
        for row in await self._database.fetch(_READ_MANY, parameters):
            key, attempt = row["id"], row["attempt"]
            lines = [_shown(attempt, *stored) for stored in row["lines"]]
            found.setdefault(key, []).append(Chunk(key, attempt, row["sequence"], lines))
        return found

    def _fits(self, chunk: Chunk) -> bool:
        if not chunk.lines:
            return False
        key = (chunk.invocation_id, chunk.attempt)
        counted = self._counted[key] = self._counted.pop(key, _Counted())
        if len(self._counted) > COUNTED:
            del self._counted[next(iter(self._counted))]
        if chunk.sequence in counted.sizes:
            # Its stream broke, and the worker says all of it again.
            return chunk.size <= counted.sizes[chunk.sequence]
        # A worker caps at the same number; the margin is for how it counts.
        if counted.total + chunk.size > 2 * self._max_bytes:
            return False
        counted.sizes[chunk.sequence] = chunk.size
        counted.total += chunk.size
        return True


def _stored(lines: Sequence[LogLine]) -> list[list[int | str]]:
    # PostgreSQL's jsonb cannot hold NUL, and a worker's word is not taken for it.
    return [
        [line.time.ToMicroseconds(), int(line.stream), line.text.replace("\x00", "\ufffd")]
        for line in lines
    ]


def _shown(attempt: int, microseconds: int, stream: int, text: str) -> LogLine:
    time = Timestamp()
    time.FromDatetime(EPOCH + timedelta(microseconds=microseconds))
    return LogLine(time=time, stream=stream, text=text, attempt=attempt)  # type: ignore[arg-type]
