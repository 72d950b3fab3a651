"""Clients that call through a fault, and write down what they are told."""

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest, GetInvocationRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from tests.faults.ledger import Ledger
from tests.faults.stack import REPLICAS, SERVICES, Stack, large_result

ENDED = (
    Invocation.COMPLETED,
    Invocation.FAILED,
    Invocation.TIMED_OUT,
    Invocation.DEAD_LETTERED,
    Invocation.CANCELLED,
)
# How long one call waits for an end, at the most.
WAIT_S = 5.0
# A call that fails is made again after so long; more than once only counts as a failure.
AGAIN_S = 1.0
BACK_S = 30.0
# The longest wait between two tries of a channel.
RECONNECT_S = 2.5


class Load:
    """Some clients, each with one call at a time, until they are stopped."""

    def __init__(
        self,
        stack: Stack,
        ledger: Ledger,
        rng: random.Random,
        *,
        clients: int,
        replicas: tuple[str, ...] = REPLICAS[:1],
        cancels: float = 0.0,
        follows: bool = False,
        large_bytes: int = 0,
    ) -> None:
        """Call any of `replicas`, and cancel this share of what they accept.

        Of every other call payload and result have `large_bytes`, where that is not 0.

        With `follows` each client sees its call end before it makes the next: then
        nothing is behind what it sees but the faults.
        """
        self._stack = stack
        self._replicas = replicas
        self._cancels = cancels
        self._follows = follows
        self._large_bytes = large_bytes
        self._ledger = ledger
        self._rng = rng
        self._clients = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.errors: Counter[str] = Counter()
        """Each call that failed, by its code, whether it was made again or not."""
        self.large: set[str] = set()
        """Request ids of the calls with large content."""
        self.prefix = ledger.path.stem
        """What its request ids begin with."""
        self.starts = ledger.path.with_suffix(".starts")
        self.starts.touch()
        # Functions run as the worker's user, which may be another.
        self.starts.chmod(0o666)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Call, until `end`, or until the block ends in an error."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [
                group.create_task(self._client(number), name=f"client {number}")
                for number in range(self._clients)
            ]
            yield

    async def reach(self, accepted: int, timeout_s: float = 120) -> None:
        """Wait until so many calls more were accepted."""
        goal = len(self._ledger.accepted) + accepted
        async with asyncio.timeout(timeout_s):
            while len(self._ledger.accepted) < goal:
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Let every call under way be answered, and stop."""
        self._stopping = True
        await asyncio.wait(self._tasks)

    async def call(self, request_id: str, *, sleep: float = 0.0, wait_s: float = 0.0) -> None:
        """Make one call; until it is accepted, for as long as that takes."""
        payload = {
            "n": self._rng.randrange(1 << 30),
            "sleep": sleep,
            "starts": str(self.starts),
        }
        self._ledger.ask(request_id, payload["n"])
        if self._large_bytes and self._rng.random() < 0.5:
            self.large.add(request_id)
            payload["pad"] = "x" * self._large_bytes
        tries = 0
        while True:
            try:
                record = await self._stack.invoke(
                    "step",
                    payload,
                    request_id=request_id,
                    wait_s=wait_s,
                    at=self._rng.choice(self._replicas),
                    # Made again, it waits for a service that is just starting.
                    wait_for_ready=tries > 0,
                )
                break
            except grpc.aio.AioRpcError as error:
                tries += 1
                self.errors[error.code().name] += 1
                if tries > 1:
                    self._ledger.fail(request_id, f"{error.code().name} {error.details()}")
                await asyncio.sleep(AGAIN_S)
                if tries == 1:
                    await self._back()
        self._ledger.accept(request_id, record.id)
        self.note(record)

    def accepted(self, request_id: str) -> str:
        """The invocation that a call was answered with."""
        return self._ledger.accepted[request_id]

    def note(self, record: Invocation) -> None:
        """Write down that it has ended, if it has."""
        if record.status in ENDED:
            self._ledger.see(record.id, record.status, value_of(record))

    def expected(self, request_id: str) -> Any:
        """The value of its result, in `value_of`'s terms."""
        n = self._ledger.asked[request_id]
        if request_id not in self.large:
            return n
        return hashlib.sha256(large_result(n, self._large_bytes)).hexdigest()

    async def _client(self, number: int) -> None:
        count = 0
        while not self._stopping:
            count += 1
            waits = self._rng.random() < 0.5
            await self.call(
                f"{self.prefix}-{number}-{count}",
                sleep=self._rng.choice((0.0, 0.0, 0.05, 0.3)),
                wait_s=WAIT_S if waits else 0.0,
            )
            if self._rng.random() < self._cancels:
                await self._cancel(self.accepted(f"{self.prefix}-{number}-{count}"))
            if not waits:
                await asyncio.sleep(self._rng.uniform(0.05, 0.3))
            if self._follows:
                await self._follow(self.accepted(f"{self.prefix}-{number}-{count}"))

    async def _back(self) -> None:
        """Wait until the services are there: what is asked of a repetition is not speed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BACK_S):
                for name in SERVICES:
                    await self._stack.channel(name).channel_ready()
                # And have found each other.
                await asyncio.sleep(RECONNECT_S)

    async def _follow(self, invocation_id: str) -> None:
        """Look until it has ended, whoever is away meanwhile."""
        while invocation_id not in self._ledger.seen:
            stub = InvocationServiceStub(self._stack.channel(self._rng.choice(self._replicas)))
            request = GetInvocationRequest(invocation_id=invocation_id)
            request.wait.FromMilliseconds(int(WAIT_S * 1000))
            try:
                self.note(await stub.GetInvocation(request, timeout=2 * WAIT_S))
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
                await asyncio.sleep(AGAIN_S)

    async def _cancel(self, invocation_id: str) -> None:
        """Cancel it, unless it has ended, or nobody answers: then it is left alone."""
        stub = InvocationServiceStub(self._stack.channel(self._rng.choice(self._replicas)))
        request = CancelInvocationRequest(invocation_id=invocation_id)
        try:
            self.note(await stub.CancelInvocation(request, timeout=WAIT_S))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                self.errors[error.code().name] += 1


def value_of(record: Invocation) -> Any:
    """Its result, as the function answered it, the checksum of a large one; None without one."""
    if record.HasField("large_result"):
        return record.large_result.sha256
    return record.result.number_value if record.HasField("result") else None
