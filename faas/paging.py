"""Lists as iterators: a page is asked for when it is needed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from faas.transport import Transport


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Page = TypeVar("Page", bound=_Page)


async def pages(
    transport: Transport, method: Callable[..., Awaitable[Page]], request: Message
) -> AsyncIterator[Page]:
    """The pages of a list, from the one that `request` asks for."""
    while True:
        page = await transport.read(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token  # type: ignore[attr-defined]
