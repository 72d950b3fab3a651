"""Taking work from Redis: one message at a time into a list that is this boot's own.

What is taken stays in the list until its verdict is committed, so a worker that dies
leaves behind exactly what it had.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services import ids

QUEUE = "faas:queue:faas_executions"
DEAD = f"{QUEUE}:dead"
# A stopped worker must not go on eating messages: the server ends a wait by itself.
POP_S = 2
# Dead messages that are kept; the oldest go first.
MAX_DEAD = 10_000
LOOK_AGAIN_S = 60.0
TROUBLE_S = 0.5
# Beyond the proto's int32.
MAX_VERSION = 2**31

log = structlog.get_logger()


class BadMessage(ValueError):
    """The message is none of ours; the text says why."""


@dataclass(frozen=True)
class Offer:
    """What a message says: it may be true, late or forged; the grant decides."""

    invocation_id: str
    function_id: str
    function_version: int
    alone: bool = False
    """To be run with nothing beside it."""
    message: bytes = b""
    """Exactly as it is in the list; empty: it was assigned, and is in none."""


def read_offer(message: bytes) -> Offer:
    """The offer in a message. Raises BadMessage."""
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadMessage("it is not JSON") from error
    if not isinstance(fields, dict):
        raise BadMessage("it is not a JSON object")
    version = fields.get("function_version")
    if type(version) is not int or not 1 <= version < MAX_VERSION:
        raise BadMessage("function_version is missing or no version")
    return Offer(
        invocation_id=_id(fields, "invocation_id", ids.INVOCATION),
        function_id=_id(fields, "function_id", ids.FUNCTION),
        function_version=version,
        alone=fields.get("alone") is True,
        message=message,
    )


def _id(fields: Mapping[str, object], name: str, prefix: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or ids.parse(prefix, text) is None:
        raise BadMessage(f"{name} is missing or not '{prefix}' and a UUID")
    return text


class Intake:
    """The queue as one boot of a worker sees it."""

    def __init__(
        self,
        redis: "Redis",  # answers in bytes
        *,
        worker_id: str,
        boot_id: str,
        may_take: Callable[[], Awaitable[None]],
        draining: Callable[[], bool],
        take: Callable[[Offer], None],
    ) -> None:
        """Before each message wait for `may_take`; hand it to `take`, which returns at once.

        What comes when it is `draining` by then is put back.
        """
        self.processing = f"{QUEUE}:processing:{worker_id}:{boot_id}"
        self._redis = redis
        self._may_take = may_take
        self._draining = draining
        self._take = take
        self._held: set[bytes] = set()
        self._looked = float("-inf")

    async def run(self) -> None:
        """Take messages until cancelled."""
        while True:
            await self._may_take()
            try:
                # After a reconnection too: a command whose reply was lost has popped.
                if time.monotonic() - self._looked > LOOK_AGAIN_S:
                    await self._take_unknown()
                message = await self._redis.blmove(QUEUE, self.processing, POP_S, "RIGHT", "LEFT")
                if message is not None and self._draining():
                    await self._put_back(message)
                elif message is not None:
                    await self._receive(message)
            except (RedisError, OSError) as error:
                log.warning("taking work has to wait", error=str(error))
                self._looked = float("-inf")
                await asyncio.sleep(TROUBLE_S)

    def let_go(self, offer: Offer) -> None:
        """Its execution came to nothing: the next look at the list takes it for new."""
        self._held.discard(offer.message)

    async def acknowledge(self, offer: Offer, dead: str | None = None) -> None:
        """Take the message out of the list; tried until Redis has done it.

        `dead`: why it goes among the dead ones, if it belongs to no record.
        """
        # First: should it be offered again this moment, it is a new offer, to be refused;
        # taken for the one that is going, it would stay in the list.
        self._held.discard(offer.message)
        while True:
            try:
                if dead is None:
                    await self._redis.lrem(self.processing, 0, offer.message)  # type: ignore[arg-type]
                else:
                    await self._bury(offer.message, dead)
                break
            except (RedisError, OSError) as error:
                log.warning("acknowledging has to wait", error=str(error))
                await asyncio.sleep(TROUBLE_S)

    async def _put_back(self, message: bytes | str) -> None:
        """To where it came from: the next that is taken."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lrem(self.processing, 1, message)  # type: ignore[arg-type]
            pipeline.rpush(QUEUE, message)
            await pipeline.execute()

    async def _take_unknown(self) -> None:
        for message in await self._redis.lrange(self.processing, 0, -1):
            if message not in self._held:
                await self._may_take()
                await self._receive(message)
        self._looked = time.monotonic()

    async def _receive(self, received: bytes | str) -> None:
        message = received.encode() if isinstance(received, str) else received
        if message in self._held:
            # Offered twice while it is in hands: one acknowledgement takes out both.
            return
        try:
            offer = read_offer(message)
        except BadMessage as error:
            await self._bury(message, str(error))
            return
        self._held.add(message)
        self._take(offer)

    async def _bury(self, message: bytes, reason: str) -> None:
        log.warning("a message belongs to no record", reason=reason)
        buried = {
            "reason": reason,
            "time": time.time(),
            "message": message[:4096].decode(errors="replace"),
        }
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(DEAD, json.dumps(buried))
            pipeline.ltrim(DEAD, 0, MAX_DEAD - 1)
            pipeline.lrem(self.processing, 0, message)  # type: ignore[arg-type]
            await pipeline.execute()
