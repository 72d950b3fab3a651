"""Asynchronous objects for callers that are not: one implementation, two faces.

Everything that talks to a server is written once, as coroutines. A blocking object
is a face of such an object: `blocking(AsyncX.method)` is that method, with its own
parameters and types, run on a loop in a thread beside. That is also what lets a
blocking caller have concurrency (`map`, `as_completed`) without threads of its own,
call from inside a running loop (notebooks), and stop it all with Ctrl-C.
"""

import asyncio
import functools
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Core = TypeVar("Core")

_JOIN_S = 5.0
_CLOSING_S = 0.001


class Portal:
    """An event loop in a thread beside, which starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """What `coroutine` returns. An interrupt here cancels it there."""
        loop = self._running()
        if self._thread is threading.current_thread():
            coroutine.close()
            raise RuntimeError("A callback of a client cannot wait for that client.")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[R]) -> Iterator[R]:
        """The items, one by one; the source is closed with the iterator."""
        try:
            while (found := self.run(_next(items))) is not None:
                yield found[0]
        finally:
            if self._loop is not None:  # or it has all been closed already
                self.run(_close(items))

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """End the thread, if it has begun, after what `last` does."""
        if last is not None and self._loop is not None:
            self.run(last())
        with self._lock:
            self._stop()
            self._loop = None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=[loop], name="faas", daemon=True)
                thread.start()
                self._thread = thread
                # Also when the client is forgotten, or the interpreter ends.
                self._stop = weakref.finalize(self, _end, loop, thread)
            return self._loop


class Face(Generic[Core]):
    """A blocking object in front of an asynchronous one."""

    def __init__(self, portal: Portal, core: Core) -> None:
        """Do what `core` does, on `portal`."""
        self._portal = portal
        self._core = core


class _Bound(Generic[P, T]):
    """A method of the core, as one of its face."""

    def __init__(
        self,
        method: Callable[..., Any],
        call: Callable[[Face[Any], Any], T],
        first: Callable[[Any], Any] | None = None,
    ) -> None:
        self._method = method
        self._call = call
        self._first = first

    @overload
    def __get__(self, face: None, owner: type) -> Callable[..., T]: ...
    @overload
    def __get__(self, face: Face[Any], owner: type) -> Callable[P, T]: ...
    def __get__(self, face: Face[Any] | None, owner: type) -> Callable[..., T]:
        def call(face: Face[Any], *args: Any, **kwargs: Any) -> T:
            if self._first is not None and args:
                args = (self._first(args[0]), *args[1:])
            return self._call(face, self._method(face._core, *args, **kwargs))

        # So that help() and editors show the method's own parameters.
        function = functools.update_wrapper(call, self._method)
        return function if face is None else MethodType(function, face)


@overload
def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> _Bound[P, R]: ...
@overload
def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
    face: Callable[[Portal, R], T],
) -> _Bound[P, T]: ...
def blocking(method: Callable[..., Any], face: Any = None) -> Any:
    """A coroutine method as a blocking one; what it returns gets a `face` of its own."""

    def call(owner: Face[Any], coroutine: Coroutine[Any, Any, Any]) -> Any:
        result = owner._portal.run(coroutine)
        return result if face is None else face(owner._portal, result)

    return _Bound(method, call)


@overload
def iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[R]],
    *,
    first: Callable[[Any], Any] | None = None,
) -> _Bound[P, Iterator[R]]: ...
@overload
def iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[R]],
    face: Callable[[Portal, R], T],
) -> _Bound[P, Iterator[T]]: ...
def iterating(
    method: Callable[..., Any], face: Any = None, *, first: Callable[[Any], Any] | None = None
) -> Any:
    """A method that yields as a blocking one; each item gets a `face` of its own.

    Its first argument goes through `first`.
    """

    def call(owner: Face[Any], items: AsyncIterator[Any]) -> Any:
        found = owner._portal.iterate(items)
        return found if face is None else (face(owner._portal, item) for item in found)

    return _Bound(method, call, first)


async def pulled(items: Iterable[R]) -> AsyncIterator[R]:
    """The caller's items, taken in threads: to make one may need the loop, or take long."""
    iterator, end = iter(items), object()
    while (item := await asyncio.to_thread(next, iterator, end)) is not end:
        yield item  # type: ignore[misc]


async def _next(items: AsyncIterator[R]) -> tuple[R] | None:
    async for item in items:
        return (item,)
    return None


async def _close(items: AsyncIterator[Any]) -> None:
    if inspect.isasyncgen(items):
        # What an interrupt has cancelled may still be on its way out.
        while items.ag_running:  # noqa: ASYNC110 - nothing tells of it elsewhere
            await asyncio.sleep(_CLOSING_S)
        await items.aclose()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(_JOIN_S)
