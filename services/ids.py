"""Identifiers: a prefix that says of what, and a UUIDv7, which sorts by time.

The same string is used in the API, in Redis, in storage and in labels; PostgreSQL
stores the UUID alone.
"""

from uuid import UUID

import uuid_utils.compat

FUNCTION = "func-"
INVOCATION = "inv-"
WORKER = "worker-"
SCHEDULE = "sched-"


def new_uuid() -> UUID:
    """A new UUIDv7 (RFC 9562): its first 48 bits are milliseconds since 1970."""
    return uuid_utils.compat.uuid7()


def show(prefix: str, uuid: UUID) -> str:
    """The id as everybody but PostgreSQL sees it: `func-0190…`."""
    return f"{prefix}{uuid}"


def parse(prefix: str, text: str) -> UUID | None:
    """The UUID in `text`, or None unless it is exactly what `show` would print."""
    if not text.startswith(prefix):
        return None
    try:
        uuid = UUID(text[len(prefix) :])
    except ValueError:
        return None
    return uuid if show(prefix, uuid) == text else None
