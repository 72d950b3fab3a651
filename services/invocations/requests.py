"""What requests say, as values."""

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.message import Message

from services import ids
from services.errors import InvalidField, InvalidPageToken
from services.server import Call

MAX_WAIT_S = 900.0
# What is kept of a caller's deadline for the answer itself.
ANSWER_S = 1.0


def invocation_key(text: str, field: str = "invocation_id") -> UUID:
    """The invocation that is meant. Raises InvalidField."""
    key = ids.parse(ids.INVOCATION, text)
    if key is None:  # the proto's rule lets through what only looks like a UUID
        raise InvalidField.of(field, "must be 'inv-' and a lower-case UUID")
    return key


def waiting_s(request: Message, call: Call) -> float:
    """How long to wait, by the request's `wait` and the call's deadline."""
    wait = getattr(request, "wait")  # noqa: B009 - of several messages
    asked: float = wait.ToTimedelta().total_seconds() if request.HasField("wait") else 0.0
    left = call.time_left_s()
    return min(asked, MAX_WAIT_S, asked if left is None else left - ANSWER_S)


def moment(request: Message, field: str) -> datetime | None:
    """The moment in a Timestamp; None where it is absent. Raises InvalidField."""
    if not request.HasField(field):
        return None
    try:
        found: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidField.of(field, "must be a moment of the years 1 to 9999") from error
    return found


def position_key(position: list[str] | None) -> UUID | None:
    """The record at which the page before ended. Raises InvalidPageToken."""
    if position is None:
        return None
    try:
        return UUID(position[0])
    except ValueError as error:
        raise InvalidPageToken.of("page_token", "was not made by this list call") from error
