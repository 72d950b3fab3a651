"""The feeder: puts due records into Redis, and finds those that Redis lost.

Retry backoff, recovery and a backlog are all just `due_at` and this one loop. Every
replica runs it; none knows of the others.
"""

import asyncio

import structlog
from redis.exceptions import RedisError

from services.invocations.database import UNAVAILABLE
from services.invocations.lanes import Lanes
from services.invocations.leases import Leases
from services.invocations.offers import OfferBook
from services.invocations.queue import PROCESSING, Queue, invocation_id
from services.invocations.records import Record

# Without being woken it looks this often, for what became due meanwhile.
IDLE_S = 0.5
BATCH = 200
# After trouble with PostgreSQL or Redis.
TROUBLE_S = 1.0

log = structlog.get_logger()


class Feeder:
    """Keeps Redis supplied from PostgreSQL."""

    def __init__(self, book: OfferBook, queue: Queue, lanes: Lanes, *, queue_limit: int) -> None:
        """Offer what `book` has due into `queue`, up to `queue_limit` at once."""
        self._book = book
        self._lanes = lanes
        self._queue = queue
        self._limit = queue_limit
        self._wake = asyncio.Event()
        self._length = 0
        self._is_busy = False

    @property
    def is_busy(self) -> bool:
        """Whether something waits in the queue, as far as is known; true for too long at most."""
        return self._is_busy

    @property
    def has_room(self) -> bool:
        """Whether the queue, when last seen, was shorter than its limit."""
        return self._length < self._limit

    def saw_length(self, length: int) -> None:
        """Note the queue's length, as a push answered it."""
        self._length = length
        # A worker that waits for one takes it in this moment.
        self._is_busy = self._is_busy or length > 1

    def wake(self) -> None:
        """Look at once: something is due now."""
        self._wake.set()

    async def run(self) -> None:
        """Feed until cancelled."""
        while True:
            try:
                moved = await self.feed()
            except (*UNAVAILABLE, RedisError, OSError) as error:
                log.warning("feeding has to wait", error=str(error))
                moved = 0
                await asyncio.sleep(TROUBLE_S)
            if moved < BATCH:
                await self._idle()

    async def feed(self) -> int:
        """Offer one batch of due records; returns how many."""
        self._length = await self._queue.length()
        self._is_busy = self._length > 0
        room = min(BATCH, self._limit - self._length)
        if room <= 0:
            return 0
        moved = await self._offer(await self._book.take_due(room))
        for lane in await self._lanes.all():
            if lane.paused_at is None and moved < room:
                taken = await self._book.take_due_in_lane(lane.function_id, room - moved)
                moved += await self._offer(taken)
        return moved

    async def _offer(self, records: list[Record]) -> int:
        if not records:
            return 0
        try:
            self._length = await self._queue.offer(records)
        except (RedisError, OSError):
            # Perhaps they are there all the same: a doubled offer does no harm.
            await self._book.take_back([record.id for record in records])
            raise
        return len(records)

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


class Recovery:
    """Compares what was offered with what is in Redis, and offers the rest again."""

    def __init__(
        self,
        book: OfferBook,
        queue: Queue,
        leases: Leases,
        feeder: Feeder,
        *,
        interval_s: float,
        grace_s: float,
    ) -> None:
        """Every `interval_s`, judge offers that are older than `grace_s`."""
        self._book = book
        self._queue = queue
        self._leases = leases
        self._feeder = feeder
        self._interval_s = interval_s
        self._grace_s = grace_s

    async def run(self) -> None:
        """Recover until cancelled."""
        while True:
            try:
                await self.recover()
            except (*UNAVAILABLE, RedisError, OSError) as error:
                log.warning("recovery has to wait", error=str(error))
            await asyncio.sleep(self._interval_s)

    async def recover(self) -> None:
        """One pass: lists of dead boots are emptied, offers that Redis lost are made again."""
        # The rows are read first: what is offered after that cannot be missed.
        offered = await self._book.offered(self._grace_s)
        offers = await self._queue.snapshot()
        boots = await self._leases.living_boots()
        for name, messages in offers.taken.items():
            if messages and name.removeprefix(PROCESSING).rpartition(":")[2] not in boots:
                await self._empty(name, messages)
        in_redis = offers.invocation_ids()
        missing = {key: seen for key, seen in offered.items() if key not in in_redis}
        if missing:
            count = await self._book.withdraw(missing)
            log.warning("offers were lost in Redis; offering again", count=count)
            self._feeder.wake()

    async def _empty(self, name: str, messages: list[bytes]) -> None:
        """Give back what a dead boot had taken: first in the rows, then in Redis."""
        taken = [key for key in map(invocation_id, messages) if key is not None]
        count = await self._book.take_back(taken)
        await self._queue.forget(name, messages)
        log.warning("emptied the list of a dead worker", list=name, offered_again=count)
        self._feeder.wake()
