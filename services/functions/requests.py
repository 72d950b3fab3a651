"""What requests say of a function, as values of its columns."""

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from faas.v1.function_pb2 import RetryPolicy
from faas.v1.function_service_pb2 import CreateFunctionRequest, UpdateFunctionRequest
from services.errors import FieldViolation, InvalidField
from services.functions.messages import sandbox_name
from services.retries import policy_to_row

SOURCES = ("code", "archive", "upload_id")

_COLUMNS = {"timeout": "timeout_ms", "max_age": "max_age_ms"}
_DEFAULTS: dict[str, Any] = {
    "description": "",
    "handler": None,  # the source decides
    "memory_mb": 128,
    "cpus": 1.0,
    "timeout_ms": 30_000,
    "env": {},
    "labels": {},
    "retry_policy": None,
    "max_age_ms": None,
    "max_concurrency": None,
    "min_warm": None,
    "sandbox": None,
}
_REQUIRED = ("name", "runtime")
_FIELDS = (
    *_REQUIRED,
    "description",
    "handler",
    "memory_mb",
    "cpus",
    "timeout",
    "env",
    "labels",
    "retry_policy",
    "max_age",
    "max_concurrency",
    "min_warm",
    "sandbox",
)

Values = dict[str, Any]
"""By the columns' names: what a function is to have. A handler of None is to be found."""


def values_to_create(request: CreateFunctionRequest) -> Values:
    """All values of a new function."""
    return _DEFAULTS | _present(request, _FIELDS)


def values_to_change(request: UpdateFunctionRequest) -> tuple[Values, str | None]:
    """The values that are to change, and the field that has new code.

    Raises InvalidField for a mask with other fields, or that would clear what must be.
    """
    source = request.WhichOneof("source")
    if not request.HasField("update_mask"):
        return _present(request, _FIELDS), source
    mask = set(request.update_mask.paths)
    present = _present(request, mask.intersection(_FIELDS))
    wanted = {_COLUMNS.get(name, name) for name in mask.intersection(_FIELDS)}
    _check_mask(mask, present, source)
    cleared = {name: _DEFAULTS[name] for name in wanted if name not in present}
    return present | cleared, source if source in mask else None


def _check_mask(mask: set[str], present: Values, source: str | None) -> None:
    wrong = [
        f"there is no field {path!a} to change"
        for path in sorted(mask.difference(_FIELDS, SOURCES))
    ]
    needed = mask.intersection((*_REQUIRED, *SOURCES)).difference(present, {source})
    wrong += [f"{path} cannot be cleared" for path in sorted(needed)]
    if wrong:
        violations = [FieldViolation("update_mask", why) for why in wrong]
        raise InvalidField(f"update_mask: {'; '.join(wrong)}", violations=violations)


def _present(
    request: CreateFunctionRequest | UpdateFunctionRequest, fields: Iterable[str]
) -> Values:
    """The columns of those `fields` that the request has."""
    found = {}
    for name in fields:
        value = getattr(request, name)
        descriptor = request.DESCRIPTOR.fields_by_name[name]
        has: Callable[[str], bool] = request.HasField  # type: ignore[assignment]
        if has(name) if descriptor.has_presence else value:
            if descriptor.enum_type is not None:
                column = sandbox_name(value)
            else:
                # A number of 0 is none.
                none = name in ("max_concurrency", "min_warm") and not value
                column = None if none else _column_value(value)
            found[_COLUMNS.get(name, name)] = column
    return found


def _column_value(value: Any) -> Any:
    if isinstance(value, Duration):
        return max(1, round(value.ToNanoseconds() / 1e6))
    if isinstance(value, RetryPolicy):
        return policy_to_row(value)
    if isinstance(value, str | int | float):
        return value
    return dict(value)
