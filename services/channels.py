"""Channels from one part to another, and the errors that come back on them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.errors import DependencyUnavailable, FieldViolation, MeshError, by_reason
from services.server import MAX_MESSAGE_BYTES

# Parts are on one network: a lost peer is found within seconds, not minutes.
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An http proxy of the environment is never meant for a neighbour.
    ("grpc.enable_http_proxy", 0),
]


def connect(address: str) -> grpc.aio.Channel:
    """A channel to a part: `host:port`, or `unix:/path`. Connects when first used."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


@asynccontextmanager
async def mesh_errors(part: str) -> AsyncIterator[None]:
    """Raise what a call to `part` answered as the MeshError that was raised there."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, part) from error


def from_rpc_error(error: grpc.aio.AioRpcError, part: str) -> MeshError:
    """The MeshError that a status stands for."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        status = None  # of another error than this: something between has its own
    if status is None:
        unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if error.code() in unreachable:
            return DependencyUnavailable(f"{part} does not answer. Try again.")
        return MeshError(f"{part} answered {error.code().name}: {error.details()}")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    return by_reason().get(info.reason, MeshError)(
        status.message,
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations],
        metadata=dict(info.metadata),
    )
