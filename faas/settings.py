"""Settings of a function, as people write them and as requests carry them.

The fields are those of the proto: what it gains, this takes.
"""

import difflib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from faas.errors import InvalidSettings
from faas.v1.function_service_pb2 import CreateFunctionRequest, UpdateFunctionRequest

Seconds: TypeAlias = float | timedelta | str
"""Seconds, or as JSON has them: `"30s"`."""

Request = TypeVar("Request", CreateFunctionRequest, UpdateFunctionRequest)


class Settings(TypedDict, total=False):
    """Everything about a function but its name, its code and its runtime."""

    description: str
    handler: str
    memory_mb: int
    cpus: float
    timeout: Seconds
    env: Mapping[str, str]
    labels: Mapping[str, str]


# What a request has besides, which is none.
_OTHER = {"name", "runtime", "function_id", "update_mask", "etag", "request_id"}

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
    wanted = {name: _as_json(name, value) for name, value in settings.items()}
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


def _as_json(name: str, value: Any) -> Any:
    """As the proto's JSON has it."""
    if isinstance(value, timedelta):
        return _duration(value.total_seconds())
    if name == "timeout" and isinstance(value, int | float) and not isinstance(value, bool):
        return _duration(value)
    if isinstance(value, Mapping) and name in ("env", "labels"):
        # A port is a number in everybody's manifest.
        return {k: str(v) if type(v) in (int, float) else v for k, v in value.items()}
    return value


def _duration(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
