"""Settings of a function, as people write them and as requests carry them.

The fields are those of the proto: what it gains, this takes.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from faas.errors import InvalidSettings
from faas.v1.function_service_pb2 import CreateFunctionRequest, UpdateFunctionRequest

Seconds: TypeAlias = float | timedelta | str
"""Seconds, or as JSON has them: `"30s"`."""

Request = TypeVar("Request", CreateFunctionRequest, UpdateFunctionRequest)


class RetryPolicy(TypedDict, total=False):
    """When a failed invocation is started again: see the proto's."""

    max_attempts: int
    initial_backoff: Seconds
    max_backoff: Seconds
    retry_on: Sequence[str]
    retry_lost_worker: bool


class Settings(TypedDict, total=False):
    """Everything about a function but its name, its code and its runtime."""

    description: str | None
    handler: str | None
    memory_mb: int | None
    cpus: float | None
    timeout: Seconds | None
    env: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    retry_policy: RetryPolicy | None
    max_age: Seconds | None
    max_concurrency: int | None
    min_warm: int | None
    sandbox: str | None


# What a request has besides, which is none.
_OTHER = {"name", "runtime", "function_id", "update_mask", "etag", "request_id", "validate"}

NAMES: tuple[str, ...] = tuple(
    field.name
    for field in UpdateFunctionRequest.DESCRIPTOR.fields
    if field.name not in _OTHER
    and (field.containing_oneof is None or field.containing_oneof.name != "source")
)
"""Every setting that there is."""


def fill(request: Request, settings: Mapping[str, Any]) -> Request:
    """Put `settings` into `request`; in an update, what is None or empty is cleared.

    Raises InvalidSettings for one that there is not, or that cannot be.
    """
    known(settings)
    fields = request.DESCRIPTOR.fields_by_name
    wanted = {name: _as_json(fields[name], value) for name, value in settings.items()}
    given = {name: value for name, value in wanted.items() if value not in (None, "", {}, [])}
    for name, value in given.items():
        try:
            json_format.ParseDict({name: value}, request)
        except json_format.ParseError as error:
            raise InvalidSettings(f"{name}: {value!r} cannot be: {error}") from None
    if isinstance(request, UpdateFunctionRequest) and len(given) < len(wanted):
        _mask(request, wanted)
    return request


def known(settings: Mapping[str, Any]) -> None:
    """Raises InvalidSettings for a setting that there is not."""
    for name in settings:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}."
            raise InvalidSettings(f"There is no setting {name!r}: {hint}")


def _mask(request: UpdateFunctionRequest, names: Iterable[str]) -> None:
    """A mask names all that is to change, not only what is to be cleared."""
    source = request.WhichOneof("source")
    paths = [*names, *([source] if source else [])]
    if request.HasField("name"):
        paths.append("name")
    if request.HasField("runtime"):
        paths.append("runtime")
    request.update_mask.paths.extend(paths)


def values(message: Message) -> dict[str, Any]:
    """The settings that a function or a version has, as JSON's types."""
    found = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: found[name] for name in NAMES if name in found}


def _as_json(field: FieldDescriptor, value: Any) -> Any:
    """As the proto's JSON has it."""
    kind = field.message_type
    if field.enum_type is not None and isinstance(value, str):
        # `one-shot` is as good as ONE_SHOT.
        value = value.upper().replace("-", "_")
    if isinstance(value, timedelta):
        return _duration(value.total_seconds())
    if kind is None or isinstance(value, bool):
        return value
    if kind.full_name == "google.protobuf.Duration" and isinstance(value, int | float):
        return _duration(value)
    if not isinstance(value, Mapping):
        return value
    if kind.GetOptions().map_entry:
        # A port is a number in everybody's manifest.
        return {k: str(v) if type(v) in (int, float) else v for k, v in value.items()}
    fields = kind.fields_by_name
    return {k: _as_json(fields[k], v) if k in fields else v for k, v in value.items()}


def _duration(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
