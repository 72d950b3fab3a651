"""JSON and google.protobuf.Value."""

import json
import math

import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from faas.json_values import NotJson, from_json, to_json, to_python, to_value

json_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=20,
)


@given(json_documents)
def test_what_goes_in_comes_out(document: object) -> None:
    assert to_python(to_value(document)) == document
    assert json.loads(to_json(from_json(json.dumps(document).encode()))) == document


@pytest.mark.parametrize("number", [0, 3, -7, 2**53, -(2**53)])
def test_an_integral_number_stays_an_integer(number: int) -> None:
    assert to_json(Value(number_value=float(number))) == str(number).encode()


def test_an_unset_value_is_null() -> None:
    assert to_json(Value()) == b"null"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(NotJson, match="no number"):
        to_json(Value(number_value=number))


@pytest.mark.parametrize(
    "text", [b"NaN", b"[Infinity]", b"{", b"\xff", b'"\\ud800"', b"[" * 100_000]
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(NotJson):
        from_json(text)


def test_nesting_is_bounded() -> None:
    from_json(b"[" * 32 + b"]" * 32)
    with pytest.raises(NotJson, match="deeper than 32"):
        from_json(b"[" * 33 + b"]" * 33)


def test_an_integer_beyond_all_doubles_is_its_digits() -> None:
    assert to_python(to_value(10**400)) == str(10**400)


def test_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(NotJson, match="key"):
        to_value({1: 2})


def test_the_same_value_is_the_same_json_in_every_process() -> None:
    names = [f"key-{number}" for number in range(20)]
    value = to_value({name: {"b": 1, "a": 2} for name in reversed(names)})
    expected = ",".join(f'"{name}":{{"a":2,"b":1}}' for name in sorted(names))
    assert to_json(value) == f"{{{expected}}}".encode()
