"""Watching invocations: many watchers, one look at the database for all of them.

What is watched at this replica are its topics, one for each invocation however many
watch it. A single loop looks at the topics that have changed (and at all of them
once a second): one statement for their records, one for the lines that are new.
Watchers follow their topic in memory; only one that begins or lags further back than
the topic remembers reads for itself.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from google.protobuf.message import Message

from faas.v1.invocation_pb2 import LogLine
from services import ids
from services.errors import InvalidPageToken, InvocationNotFound, ShuttingDown
from services.invocations.database import UNAVAILABLE
from services.invocations.logs import MOST_CHUNKS, Chunk, Logs, Place
from services.invocations.records import Record, Records
from services.pages import make_token, read_token

LOOK_AGAIN_S = 1.0
# What a topic remembers of its newest lines, in characters.
REMEMBERED = 256 * 1024

log = structlog.get_logger()


@dataclass(frozen=True)
class Seen:
    """How far a watcher has come: the newest state that it knows, and its next line."""

    attempt: int = -1
    status: str = ""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class Event:
    """What a watcher is told, and how far that brings it.

    Neither a record nor lines: nothing has changed, the stream is alive.
    """

    seen: Seen
    record: Record | None = None
    lines: tuple[LogLine, ...] = ()
    last: bool = False


def make_cursor(request: Message, seen: Seen) -> str:
    """Where a watch goes on after `seen`, for whoever watches the same."""
    place = seen.place
    return make_token(request, [seen.attempt, seen.status, place.attempt, place.sequence])


def read_cursor(request: Message) -> Seen:
    """Where a watch is to go on. Raises InvalidPageToken."""
    position = read_token(request, int, str, int, int, field="cursor")
    if position is None:
        return Seen()
    attempt, status, *place = position
    if not all(0 <= number < 2**31 for number in (attempt + 1, *place)):
        raise InvalidPageToken.of("cursor", "was not made by this call")
    return Seen(attempt, status, Place(*place))


class _Topic:
    """One watched invocation: its newest record, and the lines from `start` to `end`."""

    def __init__(self, place: Place) -> None:
        self.record: Record | None = None
        self.missing = False
        self.start = self.end = place
        self.watchers = 0
        self.changed = asyncio.Event()
        self._chunks: deque[Chunk] = deque()
        self._size = 0

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Remember lines, and forget the oldest beyond what is to be remembered."""
        for chunk in chunks:
            self._chunks.append(chunk)
            self._size += chunk.size
            self.end = chunk.place.next
        while self._size > REMEMBERED and self._chunks:
            oldest = self._chunks.popleft()
            self._size -= oldest.size
            self.start = oldest.place.next

    def after(self, place: Place) -> list[Chunk]:
        """The remembered chunks from `place` on."""
        return [chunk for chunk in self._chunks if chunk.place >= place]

    def tell(self) -> None:
        """Wake the watchers: there is something to look at."""
        self.changed.set()
        self.changed = asyncio.Event()


class Watches:
    """All that is watched at this replica."""

    def __init__(self, records: Records, logs: Logs, *, keepalive_s: float) -> None:
        """Read `records` and `logs`; say every `keepalive_s` that a stream is alive."""
        self._records = records
        self._logs = logs
        self._keepalive_s = keepalive_s
        self._topics: dict[UUID, _Topic] = {}
        self._dirty: set[UUID] = set()
        self._wake = asyncio.Event()
        self._closed = False

    def changed(self, invocation_ids: Iterable[UUID]) -> None:
        """Look at these, so far as they are watched."""
        watched = self._topics.keys() & invocation_ids
        if watched:
            self._dirty |= watched
            self._wake.set()

    def close(self) -> None:
        """End all streams: their watchers go on at another replica."""
        self._closed = True
        for topic in self._topics.values():
            topic.tell()

    async def follow(self, invocation_id: UUID, seen: Seen) -> AsyncGenerator[Event, None]:
        """What happens to an invocation from `seen` on, until it has ended.

        Raises InvocationNotFound, also where its record has expired meanwhile, and
        ShuttingDown.
        """
        with self._topic(invocation_id, seen.place) as topic:
            while True:
                changed = topic.changed
                # What follows is about this moment; what changes meanwhile sets `changed`.
                async for event in self._news(invocation_id, topic, seen):
                    yield event
                    seen = event.seen
                    if event.last:
                        return
                if self._closed:
                    raise ShuttingDown
                try:
                    async with asyncio.timeout(self._keepalive_s):
                        await changed.wait()
                except TimeoutError:
                    yield Event(seen)

    async def run(self) -> None:
        """Look at what is watched until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            except TimeoutError:
                self._dirty |= self._topics.keys()
            self._wake.clear()
            looked_at, self._dirty = self._dirty & self._topics.keys(), set()
            if not looked_at:
                continue
            try:
                await self._look(looked_at)
            except UNAVAILABLE as error:
                log.warning("watching has to wait", error=str(error))
                await asyncio.sleep(LOOK_AGAIN_S)

    @contextmanager
    def _topic(self, invocation_id: UUID, place: Place) -> Iterator[_Topic]:
        topic = self._topics.setdefault(invocation_id, _Topic(place))
        topic.watchers += 1
        if topic.record is None:
            self.changed([invocation_id])
        try:
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers:
                del self._topics[invocation_id]

    async def _look(self, invocation_ids: set[UUID]) -> None:
        # First the records: lines are committed before the verdict that ends them.
        found = {record.id: record for record in await self._records.states(invocation_ids)}
        topics = {key: self._topics[key] for key in invocation_ids if key in self._topics}
        chunks = await self._logs.chunks({key: topic.end for key, topic in topics.items()})
        for key, topic in topics.items():
            new = chunks.get(key, [])
            topic.add(new)
            record, all_read = found.get(key), len(new) < MOST_CHUNKS
            topic.missing = record is None
            # An end is told when all that was printed before it is.
            if record is not None and (all_read or record.status == "running"):
                topic.record = record
            if not all_read:
                self.changed([key])
            topic.tell()

    async def _news(self, invocation_id: UUID, topic: _Topic, seen: Seen) -> AsyncIterator[Event]:
        record = topic.record
        if topic.missing:
            raise InvocationNotFound(
                f"There is no invocation {ids.show(ids.INVOCATION, invocation_id)}."
            )
        if record is None:
            return
        state_is_new = (record.attempt, record.status) != (seen.attempt, seen.status)
        place = seen.place
        async for chunk in self._lines(invocation_id, topic, place):
            if chunk.attempt > record.attempt:
                break  # of a start that is not known here yet
            # A start comes before what it prints, any other state after it.
            if state_is_new and record.status == "running" and chunk.attempt >= record.attempt:
                seen = Seen(record.attempt, record.status, place)
                state_is_new = False
                yield Event(seen, record)
            place = chunk.place.next
            seen = Seen(seen.attempt, seen.status, place)
            yield Event(seen, lines=tuple(chunk.lines))
        if state_is_new:
            yield Event(Seen(record.attempt, record.status, place), record, last=record.ended)
        elif record.ended:
            # It knows already, and came back all the same.
            yield Event(seen, record, last=True)

    async def _lines(
        self, invocation_id: UUID, topic: _Topic, place: Place
    ) -> AsyncIterator[Chunk]:
        end = topic.end
        while place < topic.start:
            found = (await self._logs.chunks({invocation_id: place})).get(invocation_id, [])
            for chunk in found:
                yield chunk
                place = chunk.place.next
            if len(found) < MOST_CHUNKS:
                break
        for chunk in topic.after(place):
            if chunk.place < end:
                yield chunk
