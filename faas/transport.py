"""One connection to a server: deadlines, retries, the credential, errors.

What is tried again, within the call's deadline: a read that met UNAVAILABLE, and a
write that the server takes twice as once (`again`). Where the server says how long
to stay away (`RetryInfo`), that comes first. Nothing else is: whether a change was
made is then the caller's to look at.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from faas import __version__
from faas.address import Address
from faas.errors import (
    CallFailed,
    NotSupported,
    ServerError,
    TooMuch,
    Unavailable,
    from_rpc_error,
)

Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
ATTEMPTS = 5
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", f"faas-python/{__version__}"),
    # The retries here know what may be tried again; gRPC's own do not.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Transport:
    """Calls to one server. It connects with the first one, on the loop that makes it."""

    def __init__(
        self,
        address: Address,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        root_certificates: bytes | None = None,
    ) -> None:
        """Call `address` with `token` as bearer credential; a call may take `timeout_s`."""
        self.address = address
        self.timeout_s = timeout_s
        self._root_certificates = root_certificates
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        self._channel: grpc.aio.Channel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, for stubs."""
        if self._channel is None:
            self._channel = self._connect()
        return self._channel

    async def close(self) -> None:
        """Close the connection; the next call would make a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Message,
        *,
        timeout_s: float | None = None,
        again: bool = False,
    ) -> Response:
        """Make a call. Raises CallFailed."""
        return await self._try(method, lambda: request, timeout_s, again)

    async def answered(
        self,
        method: Callable[..., grpc.aio.UnaryUnaryCall[Any, Response]],
        request: Message,
        *,
        timeout_s: float,
    ) -> tuple[Response, dict[str, str]]:
        """Make a call once: its answer, and the headers that came with it. Raises CallFailed."""
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            response = await call
            headers = await call.initial_metadata()
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from None
        return response, _texts(headers)

    async def read(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Message,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a call that changes nothing. Raises CallFailed."""
        return await self._try(method, lambda: request, timeout_s, True)

    async def send(
        self,
        method: Callable[..., Awaitable[Response]],
        messages: Callable[[], Iterable[Message]],
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a stream of messages, made anew for each try. Raises CallFailed."""
        return await self._try(method, lambda: _paced(messages()), timeout_s, True)

    async def exchange(
        self,
        method: Callable[..., grpc.aio.StreamStreamCall[Any, Response]],
        messages: AsyncIterator[Message],
        *,
        timeout_s: float,
    ) -> AsyncIterator[tuple[Response, Mapping[str, str]]]:
        """Send a stream, once: what comes back, with the answer's headers. Raises CallFailed."""
        call = method(messages, timeout=timeout_s, metadata=self._metadata)
        headers: Mapping[str, str] | None = None
        try:
            async for response in call:
                if headers is None:
                    headers = _texts(await call.initial_metadata())
                yield response, headers
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from None
        finally:
            call.cancel()

    async def download(
        self,
        method: Callable[..., grpc.aio.UnaryStreamCall[Any, HttpBody]],
        request: Message,
        *,
        timeout_s: float,
    ) -> AsyncIterator[bytes]:
        """Content that comes in chunks, all of it. Raises CallFailed."""
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        whole: Whole | None = None
        try:
            async for body in call:
                if whole is None:
                    whole = Whole(_texts(await call.initial_metadata()))
                whole.add(body.data)
                yield body.data
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from None
        finally:
            call.cancel()
        if whole is not None:
            whole.check()

    async def receive(
        self,
        method: Callable[..., grpc.aio.UnaryStreamCall[Any, Response]],
        request: Message,
        *,
        timeout_s: float,
        silence_s: float | None = None,
    ) -> AsyncIterator[Response]:
        """What the server sends until it ends; not tried again. Raises CallFailed.

        A server that is silent for `silence_s` is gone.
        """
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        answers = aiter(call)
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    response = await anext(answers, None)
                if response is None:
                    return
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from None
        except TimeoutError:
            raise Unavailable(f"{self.address} has been silent for {silence_s} s.") from None
        finally:
            call.cancel()

    async def _try(
        self,
        method: Callable[..., Awaitable[Response]],
        argument: Callable[[], object],
        timeout_s: float | None,
        again: bool,
    ) -> Response:
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        while True:
            attempt += 1
            left_s = max(deadline - time.monotonic(), 0.001)
            try:
                return await method(argument(), timeout=left_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                failure = self._explain(error)
            wait_s = pause_s(failure, attempt) if again else None
            if wait_s is None or time.monotonic() + wait_s > deadline:
                raise failure
            await asyncio.sleep(wait_s)

    def _connect(self) -> grpc.aio.Channel:
        # A proxy of the environment is not meant for this machine.
        options = [*_OPTIONS, ("grpc.enable_http_proxy", int(not self.address.local))]
        if not self.address.secure:
            return grpc.aio.insecure_channel(self.address.target, options=options)
        credentials = grpc.ssl_channel_credentials(self._root_certificates)
        return grpc.aio.secure_channel(self.address.target, credentials, options=options)

    def _explain(self, error: grpc.aio.AioRpcError) -> CallFailed:
        failure = from_rpc_error(error)
        if isinstance(failure, Unavailable) and not (failure.reason or failure.retry_after_s):
            # gRPC's own words: addresses, errno, and no cure.
            text = f"No server answers at {self.address}."
            why = failure.message.rpartition(": ")[2]
            return Unavailable(f"{text} ({why})", code=failure.code)
        if isinstance(failure, NotSupported):
            failure.args = (
                f"The server at {self.address} does not know this call: it is older than this"
                f" client ({__version__}), or is no faas-mesh.",
            )
        return failure


class Whole:
    """Counts and sums content, where the server has said what there will be of it."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """As `headers` say."""
        self._said = (headers.get("x-faas-size-bytes"), headers.get("x-faas-sha256"))
        self._digest = hashlib.sha256()
        self._size = 0

    def add(self, data: bytes) -> None:
        """The next of it."""
        self._size += len(data)
        if self._said[1]:
            self._digest.update(data)

    def check(self) -> None:
        """That was all. Raises ServerError where it was not."""
        if self._said[1] and self._said != (str(self._size), self._digest.hexdigest()):
            raise ServerError("The content broke off, or was changed on its way. Read it again.")


def _texts(headers: Any) -> dict[str, str]:
    return {key: value for key, value in headers or () if isinstance(value, str)}


def pause_s(failure: CallFailed, attempt: int) -> float | None:
    """How long to wait before the next try; None: there is none."""
    if attempt >= ATTEMPTS:
        return None
    if isinstance(failure, TooMuch) and failure.retry_after_s:
        return failure.retry_after_s
    if not isinstance(failure, Unavailable):
        return None
    backoff_s = min(FIRST_BACKOFF_S * 2 ** (attempt - 1), MAX_BACKOFF_S)
    # Half of it by chance, so that callers who failed together do not come back together.
    return failure.retry_after_s or backoff_s * random.uniform(0.5, 1.0)  # noqa: S311


async def _paced(messages: Iterable[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message
