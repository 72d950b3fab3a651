"""The gRPC server that every part runs on: the one module that knows grpc.aio.

A servicer is any object with a method per RPC of its service, taking the request
(or an async iterator of requests) and a `Call`, and returning the response (or,
as an async generator, yielding them). It raises `MeshError`s; this module
validates requests by the rules in the protos, turns errors into statuses, logs,
and adds health, reflection and a graceful end.
"""

import asyncio
import signal
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
import protovalidate
import structlog
from google.api import annotations_pb2
from google.protobuf import descriptor, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from faas.v1 import error_reason_pb2 as reasons
from services.errors import (
    DependencyUnavailable,
    FieldViolation,
    InvalidField,
    MalformedRequest,
    MeshError,
    OutcomeUnknown,
    ShuttingDown,
)
from services.ids import new_uuid

ERROR_DOMAIN = "faas-mesh"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024

# An error travels in headers. gRPC's clients refuse more than 8 KiB of them, and beyond its
# own limit Envoy drops the connection, with the calls of everybody that are on it.
MAX_ERROR_MESSAGE = 1536
MAX_VIOLATIONS = 2560
"""Both in bytes as they travel, the second of all violations together."""
_MAX_FIELD, _MAX_DESCRIPTION = 128, 256

# How long one that was answered before all had come may go on sending.
TO_THE_END_S = 10.0

# Stands for a request whose bytes are no such message.
_UNREADABLE = AnyMessage()

_RULES = {"buf.validate.message", "buf.validate.oneof", "buf.validate.field"}

log = structlog.get_logger()


@dataclass(frozen=True)
class Call:
    """What a servicer may know of a call besides its request."""

    method: str
    """`faas.v1.FunctionService/CreateFunction`."""
    request_id: str
    """The caller's or Envoy's `x-request-id`, or one made here."""
    peer: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    answer_metadata: dict[str, str] = field(default_factory=dict)
    """What is put here is sent with the answer or the error: as headers, over HTTP."""
    deadline: float | None = None
    """On `time.monotonic()`'s scale; None: the caller waits for ever."""

    def time_left_s(self) -> float | None:
        """Seconds until the caller stops waiting; None: never."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Server:
    """One gRPC server. Add servicers, then `start`, or `run` until SIGTERM."""

    def __init__(
        self,
        address: str,
        *,
        drain_timeout_s: float = 10.0,
        unavailable: Sequence[type[Exception]] = (),
        unsure: Callable[[Exception], bool] = lambda _: False,
        on_drain: Sequence[Callable[[], None]] = (),
        reflect: Sequence[str] = (),
    ) -> None:
        """Listen at `address` (`host:port`, port 0 for any; or `unix:/path`).

        `unavailable` are exceptions that mean a dependency does not answer, such
        as the database driver's: they become UNAVAILABLE, not INTERNAL. `unsure`
        says which of them leave open whether a change was made. `on_drain` are
        called when the end begins, to end what would outlast it: long waits, streams.
        `reflect` are services that reflection shows beside those that are served here.
        """
        self._address = address
        self._drain_timeout_s = drain_timeout_s
        self._unavailable = tuple(unavailable)
        self._unsure = unsure
        self._on_drain = tuple(on_drain)
        self._reflect = tuple(reflect)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # More than the gateway lets through, so that it is the one to refuse.
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                # Two processes on one port by mistake should be an error.
                ("grpc.so_reuseport", 0),
            ]
        )
        self._services: list[str] = []
        self._draining = False
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port: int = 0
        """The port it listens on, once started; 0 or 1 on a unix socket."""

    def add(self, service: descriptor.ServiceDescriptor, *servicers: object) -> None:
        """Serve every RPC of `service` with the method of that name, of whichever has it."""
        handlers = {
            m.name: self._handler(
                m, next(getattr(one, m.name) for one in servicers if hasattr(one, m.name))
            )
            for m in service.methods
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service.full_name, handlers)]
        )
        self._services.append(service.full_name)

    async def start(self) -> None:
        """Listen and say SERVING, for each service and for the whole."""
        names = (*self._services, *self._reflect, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, _Symbols())  # type: ignore[arg-type]
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()
        for name in ("", *self._services):
            await self.set_serving(name, True)
        log.info("listening", address=self._address, port=self.port, services=self._services)

    async def set_serving(self, service: str, serving: bool) -> None:
        """Change what the standard health service says of `service` ("" is the whole)."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Refuse new calls, let those under way end, and close."""
        self._draining = True
        for end in self._on_drain:
            end()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._drain_timeout_s)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stopping = stop_on_signals()
        await self.start()
        await stopping.wait()
        log.info("draining")
        await self.stop()
        log.info("ended")

    def _handler(
        self, method: descriptor.MethodDescriptor, behaviour: Callable[[Any, Call], Any]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        request_class = message_factory.GetMessageClass(method.input_type)
        name = f"{method.containing_service.full_name}/{method.name}"
        check = _valid if has_rules(method.input_type) else _readable
        streams_in, streams_out = method.client_streaming, method.server_streaming
        http = method.GetOptions().Extensions[annotations_pb2.http]
        reads = http.HasField("get")
        # What HTTP carries too ends before its answer begins: it is no conversation.
        has_end = streams_in and (not streams_out or http.WhichOneof("pattern") is not None)

        async def unary(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            call = _call(name, context)
            with structlog.contextvars.bound_contextvars(request_id=call.request_id):
                try:
                    self._refuse_while_draining()
                    requests = _each(check, request) if streams_in else check(request)
                    answer: Awaitable[Any] = behaviour(requests, call)
                    answered = await answer
                    if has_end:
                        await _to_its_end(request)
                    await _send_metadata(context, call)
                    return answered
                except Exception as error:
                    if has_end:
                        await _to_its_end(request)
                    await _send_metadata(context, call)
                    await _abort(context, self._as_mesh_error(error, call, reads))

        async def stream(
            request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            call = _call(name, context)
            with structlog.contextvars.bound_contextvars(request_id=call.request_id):
                try:
                    self._refuse_while_draining()
                    requests = _each(check, request) if streams_in else check(request)
                    # Closed with the call, not when it is collected: it may hold things.
                    async with aclosing(behaviour(requests, call)) as responses:
                        async for response in responses:
                            if call.answer_metadata:
                                await _send_metadata(context, call)
                                call.answer_metadata.clear()
                            yield response
                except Exception as error:
                    if has_end:
                        await _to_its_end(request)
                    # Not ahead of the error: over HTTP it would come too late for a status.
                    failure = self._as_mesh_error(error, call, reads)
                    await _abort(context, failure, call.answer_metadata)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[streams_in, streams_out]
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            stream if streams_out else unary,
            request_deserializer=_parser(request_class),
            response_serializer=lambda message: message.SerializeToString(),
        )
        return handler

    def _refuse_while_draining(self) -> None:
        if self._draining:
            raise ShuttingDown

    def _as_mesh_error(self, error: Exception, call: Call, reads: bool) -> MeshError:
        if isinstance(error, MeshError):
            return error
        if not reads and self._unsure(error):
            log.warning("a dependency was lost in a call", method=call.method, error=str(error))
            return OutcomeUnknown()
        if isinstance(error, self._unavailable):
            log.warning("a dependency does not answer", method=call.method, error=str(error))
            return DependencyUnavailable()
        error_id = str(new_uuid())
        log.error("a call failed", method=call.method, error_id=error_id, exc_info=error)
        return MeshError(f"Something went wrong on our side; the log has it as {error_id}.")


class _Symbols:
    """What reflection finds: all types, and methods, which protobuf's own pool does not find."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, name: str) -> descriptor.FileDescriptor:
        """The file that defines `name`. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            service, _, method = name.rpartition(".")
            found = self._pool.FindServiceByName(service).methods_by_name[method]
            return found.containing_service.file


def validate(message: Message) -> None:
    """Check `message` by the rules in its proto. Raises InvalidField, naming all fields.

    Of very many the caller is told the first ones.
    """
    violations = [
        FieldViolation(_path(v.proto.field), v.proto.message)
        for v in protovalidate.collect_violations(message)
    ]
    if violations:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidField(text, violations=violations)


def stop_on_signals() -> asyncio.Event:
    """An event that is set by the first SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def has_rules(message: descriptor.Descriptor) -> bool:
    """Whether `validate` has anything to look at in such a message, or in one within it."""
    seen: set[str] = set()
    left = [message]
    while left:
        one = left.pop()
        if one.full_name in seen:
            continue
        seen.add(one.full_name)
        options = (one, *one.oneofs, *one.fields)
        if any(
            _RULES & {rule.full_name for rule, _ in each.GetOptions().ListFields()}
            for each in options
        ):
            return True
        left.extend(field.message_type for field in one.fields if field.message_type)
    return False


async def _each(
    check: Callable[[Message], Message], requests: AsyncIterator[Message]
) -> AsyncIterator[Message]:
    async for request in requests:
        yield check(request)


async def _to_its_end(requests: AsyncIterator[Message]) -> None:
    """Read on, for a while, what is of no use any more.

    Who is still sending would not hear the answer: a connection that breaks under them
    comes first, or an error of gRPC's own (in Python a write that fails because the call
    has ended puts INTERNAL in the place of the status that has come, grpc/grpc#36066).
    """
    try:
        async with asyncio.timeout(TO_THE_END_S):
            async for _ in requests:
                continue
    except TimeoutError:
        log.info("a caller goes on sending after its answer")


def _valid(request: Message) -> Message:
    validate(_readable(request))
    return request


def _parser(request_class: type[Message]) -> Callable[[bytes], Message]:
    """Reads requests. Not by raising: what is raised here, grpc answers as our failure."""

    def parse(data: bytes) -> Message:
        try:
            return request_class.FromString(data)
        except DecodeError:
            return _UNREADABLE

    return parse


def _readable(request: Message) -> Message:
    if request is _UNREADABLE:
        raise MalformedRequest
    return request


def _path(field_path: Any) -> str:
    path = ""
    for element in field_path.elements if field_path else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            path += f"[{value}]" if isinstance(value, int) else f'["{value}"]'
    return path


def _call(method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
    left = context.time_remaining()
    return Call(
        method=method,
        request_id=metadata.get("x-request-id") or str(new_uuid()),
        peer=context.peer(),
        metadata=metadata,
        deadline=None if left is None else time.monotonic() + left,
    )


async def _send_metadata(context: grpc.aio.ServicerContext[Any, Any], call: Call) -> None:
    if call.answer_metadata:
        await context.send_initial_metadata(tuple(call.answer_metadata.items()))


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: MeshError,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """End the call with the status that `error` stands for (google.rpc.Status, AIP-193)."""
    info = error_details_pb2.ErrorInfo(
        reason=reasons.ErrorReason.Name(error.reason),
        domain=ERROR_DOMAIN,
        metadata=error.metadata,
    )
    details: list[Message] = [info]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=v.field, description=v.description, reason=info.reason
                    )
                    for v in _that_fit(error.violations)
                ]
            )
        )
    message = _cut(error.message, MAX_ERROR_MESSAGE)
    status = status_pb2.Status(code=error.code, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    code = next(c for c in grpc.StatusCode if c.value[0] == error.code)
    await context.abort(
        code,
        message,
        trailing_metadata=(
            *metadata.items(),
            ("grpc-status-details-bin", status.SerializeToString()),
        ),
    )


def _that_fit(violations: Iterable[FieldViolation]) -> Iterator[FieldViolation]:
    """As many of them, each as long, as an error has room for."""
    left = MAX_VIOLATIONS
    for violation in violations:
        field = _cut(violation.field, _MAX_FIELD)
        description = _cut(violation.description, _MAX_DESCRIPTION)
        # The reason stands beside each.
        left -= _size(field) + _size(description) + 32
        if left < 0:
            return
        yield FieldViolation(field, description)


def _cut(text: str, most: int) -> str:
    """`text`, cut where it would be more than `most` bytes in a header."""
    if _size(text) <= most:
        return text
    left = most - _size("…")
    for place, character in enumerate(text):
        left -= _size(character)
        if left < 0:
            return f"{text[:place]}…"
    return text


def _size(text: str) -> int:
    """Bytes of `text` in a header, where all but printable ASCII is escaped."""
    return sum(1 if " " <= c <= "~" else 3 * len(c.encode("utf-8", "replace")) for c in text)
