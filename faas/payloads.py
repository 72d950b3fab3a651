"""Payloads as requests carry them."""

from typing import Any

from google.protobuf.struct_pb2 import Value
from grpc import StatusCode

from faas.errors import InvalidPayload
from faas.json_values import NotJson, to_value


def value_of(payload: Any) -> Value:
    """Python's JSON types as a Value; a tuple is a list. Raises InvalidPayload."""
    try:
        return to_value(_plain(payload))
    except NotJson as error:
        raise InvalidPayload(
            f"payload: {error}.", code=StatusCode.INVALID_ARGUMENT, reason="INVALID_PAYLOAD"
        ) from None


def _plain(payload: Any) -> Any:
    if isinstance(payload, dict):
        return {key: _plain(value) for key, value in payload.items()}
    if isinstance(payload, list | tuple):
        return [_plain(value) for value in payload]
    return payload
