"""Page sizes and opaque page tokens of every list call (AIP-158).

A cursor, by which a watch is resumed, is a token of the same kind.
"""

import base64
import binascii
import hashlib
import json
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from services.errors import InvalidPageToken

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_INTEGER = 2**31 - 1


def page_size(asked: int, default: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE) -> int:
    """How many to return where `asked` were asked for: 0 is the default."""
    return min(asked or default, most)


def make_token(request: Message, position: list[Any]) -> str:
    """A token for the page after `position`, good for `request` only."""
    text = json.dumps([_fingerprint(request), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(request: Message, *types: type, field: str = "page_token") -> list[Any] | None:
    """The position in `request`'s token, whose items are of `types`; None without one.

    An int is one that a column has, a str one that PostgreSQL takes; a UUID is in the
    token as text. Raises InvalidPageToken where it was made up, or made for another
    request.
    """
    token: str = getattr(request, field)
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        fingerprint: str
        position: list[Any]
        fingerprint, *position = found
        items = [_item(item, kind) for item, kind in zip(position, types, strict=True)]
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvalidPageToken.of(field, "was not made by this call") from error
    if fingerprint != _fingerprint(request):
        raise InvalidPageToken.of(field, "was made for another request")
    return items


def _item(item: Any, kind: type) -> Any:
    """One item of a position. Raises ValueError where it is no `kind`."""
    if kind is UUID and type(item) is str:
        return UUID(item)
    if kind is int and type(item) is int and abs(item) <= MAX_INTEGER:
        return item
    # A lone surrogate has no bytes, and raises.
    if kind is str and type(item) is str and b"\x00" not in item.encode():
        return item
    raise ValueError(f"no {kind.__name__}")


def _fingerprint(request: Message) -> str:
    """What must not change between pages: all of the request but its page."""
    same = type(request)()
    same.CopyFrom(request)
    for name in ("page_token", "page_size", "cursor"):
        if name in same.DESCRIPTOR.fields_by_name:
            same.ClearField(name)
    digest = hashlib.sha256(same.SerializeToString(deterministic=True))
    return f"{type(same).DESCRIPTOR.name}:{digest.hexdigest()[:16]}"
