"""Grouping what comes at the same time: one statement for many rows.

Nothing waits for company. The first item goes at once; what comes while its
statement runs goes with the next. Items of one batch have different keys and go in
the keys' order, so that batches of several replicas never wait for each other in a
circle.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import psycopg

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Classes of SQLSTATE: data exception, integrity violation, program limit exceeded.
_REJECTIONS = ("22", "23", "54")


def is_rejection(error: psycopg.Error) -> bool:
    """Whether the rows are at fault, not the database: to try again would be no use."""
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "").startswith(_REJECTIONS)


class Batch(Generic[Item, Answer]):
    """Runs items in groups; one group at a time."""

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        key: Callable[[Item], Any],
        weight: Callable[[Item], int] = lambda _: 0,
        max_items: int = 200,
        max_weight: int = 8 * 1024 * 1024,
    ) -> None:
        """`run` takes items of different `key`, ordered by it, and answers each.

        A group has at most `max_items`, and no more once it weighs `max_weight`. A
        group in which the database rejects a row is halved down to that row: it alone
        fails. So `run` must change nothing where it raises.
        """
        self._run = run
        self._key = key
        self._weight = weight
        self._max_items = max_items
        self._max_weight = max_weight
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._flight: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Run `item` with whatever else is there; its answer. Raises what `run` raised."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._flight is None:
            self._flight = asyncio.create_task(self._fly(), name="batches")
        return await answer

    async def _fly(self) -> None:
        try:
            while self._waiting:
                await self._run_group(self._next_group())
        finally:
            self._flight = None
            for _, answer in self._waiting:
                answer.cancel()

    def _next_group(self) -> list[tuple[Item, "asyncio.Future[Answer]"]]:
        group: dict[Any, tuple[Item, asyncio.Future[Answer]]] = {}
        later = []
        weight = 0
        for item, answer in self._waiting:
            if answer.done():
                continue  # who asked is gone
            key = self._key(item)
            full = len(group) >= self._max_items or weight >= self._max_weight
            if full or key in group:
                later.append((item, answer))
            else:
                group[key] = (item, answer)
                weight += self._weight(item)
        self._waiting = later
        return [group[key] for key in sorted(group)]

    async def _run_group(self, group: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        if not group:
            return
        try:
            answers = await self._run([item for item, _ in group])
        except psycopg.Error as error:
            if len(group) > 1 and is_rejection(error):
                half = len(group) // 2
                await self._run_group(group[:half])
                await self._run_group(group[half:])
            else:
                _fail(group, error)
        except Exception as error:
            # To all who asked.
            _fail(group, error)
        except asyncio.CancelledError:
            for _, future in group:
                future.cancel()
            raise
        else:
            for (item, future), answer in zip(group, answers, strict=True):
                if isinstance(answer, Exception):
                    _fail([(item, future)], answer)
                elif not future.done():
                    future.set_result(answer)


def _fail(group: "list[tuple[Item, asyncio.Future[Answer]]]", error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
