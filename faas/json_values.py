"""JSON documents and `google.protobuf.Value`, exact where the two can be.

protobuf's own conversion makes every number a float: 3 arrives as 3.0, which Go's
integers and Python's `range` refuse. Here an integral number up to 2^53, which is
as far as a double counts exactly, is an integer on both sides.
"""

import json
import math
import re
from typing import Any

from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value

MAX_EXACT_INTEGER = 2**53
MAX_DEPTH = 32
"""Nesting of lists and objects that a payload or a result may have."""


_JSON_TYPE = re.compile(r"(?i)(application|text)/json|[^/;]+/[^/;]+\+json")


class NotJson(ValueError):
    """The value is none that JSON has, or is nested too deep."""


def to_json(value: Value) -> bytes:
    """`value` as compact UTF-8 JSON. An unset value is null.

    Raises NotJson for NaN, infinities, and nesting beyond MAX_DEPTH.
    """
    return dumps(to_python(value))


def from_json(document: bytes) -> Value:
    """The JSON in `document` as a Value; integers beyond 2^53 lose digits, as doubles do.

    Raises NotJson where it is not JSON, or is nested beyond MAX_DEPTH.
    """
    return to_value(loads(document))


def dumps(document: Any) -> bytes:
    """Python's JSON types as compact UTF-8. Raises NotJson for NaN and infinities."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise NotJson(str(error)) from error


def loads(document: bytes) -> Any:
    """The JSON in `document` as Python's types. Raises NotJson; NaN is not JSON."""
    try:
        return json.loads(document, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error


def is_json(content_type: str) -> bool:
    """Whether what has this content type is JSON: `application/json`, `…+json`."""
    return _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()) is not None


def check(document: bytes) -> None:
    """Raise NotJson unless `document` is JSON as a record takes it, which keeps its bytes.

    UTF-8, nested at most MAX_DEPTH deep, without lone surrogates, and without numbers
    that no double comes near.
    """
    try:
        # json.loads would take UTF-16 for JSON too.
        document.decode()
    except UnicodeDecodeError as error:
        raise NotJson("it is not UTF-8") from error
    value = loads(document)
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [item for container in level for item in _items(container)]
    if any(isinstance(item, dict | list) for item in level):
        raise NotJson(f"it is nested deeper than {MAX_DEPTH} levels")
    # Writing it again finds lone surrogates and numbers beyond a double.
    dumps(value)


def to_python(value: Value, depth: int = 0) -> Any:
    """`value` as Python's JSON types. Raises NotJson as `to_json` does."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "struct_value":
        _check_depth(depth)
        # A message's map has no order, and another one in each process: sorted, the same
        # value is the same JSON wherever it is compared.
        fields = sorted(value.struct_value.fields.items())
        return {key: to_python(item, depth + 1) for key, item in fields}
    if kind == "list_value":
        _check_depth(depth)
        return [to_python(item, depth + 1) for item in value.list_value.values]
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None


def to_value(document: Any, depth: int = 0) -> Value:  # noqa: PLR0911
    """Python's JSON types as a Value. Raises NotJson for any other type."""
    if document is None:
        return Value(null_value=NullValue.NULL_VALUE)
    if isinstance(document, bool):
        return Value(bool_value=document)
    if isinstance(document, str):
        try:
            return Value(string_value=document)
        except (UnicodeEncodeError, ValueError) as error:
            raise NotJson("a string has a lone surrogate") from error
    if isinstance(document, int | float):
        try:
            return Value(number_value=float(document))
        except OverflowError:
            # Beyond what a double can say at all: its digits, as protobuf does for int64.
            return Value(string_value=str(document))
    _check_depth(depth)
    if isinstance(document, dict):
        if not all(isinstance(key, str) for key in document):
            raise NotJson("an object has a key that is no string")
        fields = {key: to_value(item, depth + 1) for key, item in document.items()}
        return Value(struct_value=Struct(fields=fields))
    if isinstance(document, list):
        items = [to_value(item, depth + 1) for item in document]
        return Value(list_value=ListValue(values=items))
    raise NotJson(f"{type(document).__name__} is no type that JSON has")


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise NotJson(f"{number} is no number that JSON has")
    if number.is_integer() and abs(number) <= MAX_EXACT_INTEGER:
        return int(number)
    return number


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise NotJson(f"it is nested deeper than {MAX_DEPTH} levels")


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is no number that JSON has")
