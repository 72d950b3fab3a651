"""Structural differences of two JSON documents."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invocations.comparison import ABSENT, differences

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 1, []),
        (1, 1.0, []),
        (1, True, [("", 1, True)]),
        (0, False, [("", 0, False)]),
        (None, 0, [("", None, 0)]),
        ({"a": 1}, {"a": 1, "b": None}, [("/b", ABSENT, None)]),
        ({"a": 1}, {}, [("/a", 1, ABSENT)]),
        ([1, 2], [1, 3, 4], [("/1", 2, 3), ("/2", ABSENT, 4)]),
        ({"a": {"b": [0, {"c": "x"}]}}, {"a": {"b": [0, {"c": "y"}]}}, [("/a/b/1/c", "x", "y")]),
        ({"a/b~c": 1}, {"a/b~c": 2}, [("/a~1b~0c", 1, 2)]),
        ([], {}, [("", [], {})]),
        (2**70, 2**70 + 1, [("", 2**70, 2**70 + 1)]),
    ],
)
def test_what_differs_is_named(before: Any, after: Any, expected: list) -> None:
    found = [(one.path, one.before, one.after) for one in differences(before, after)]
    assert found == expected


@given(DOCUMENTS)
def test_nothing_differs_from_itself(document: Any) -> None:
    assert not list(differences(document, document))


def _put(document: Any, path: list[str], value: Any) -> Any:
    """`document` with what a difference says."""
    if not path:
        return value
    key, rest = path[0].replace("~1", "/").replace("~0", "~"), path[1:]
    if isinstance(document, dict):
        changed = dict(document)
        inner = _put(changed.get(key), rest, value)
        changed.pop(key, None) if inner is ABSENT else changed.update({key: inner})
        return changed
    items = [*document]
    index = int(key)
    inner = _put(items[index] if index < len(items) else None, rest, value)
    if inner is ABSENT:
        return items[:index]
    items[index : index + 1] = [inner]
    return items


@given(DOCUMENTS, DOCUMENTS)
def test_the_differences_make_one_of_the_other(before: Any, after: Any) -> None:
    made = before
    for one in differences(before, after):
        made = _put(made, one.path.split("/")[1:], one.after)
    assert not list(differences(made, after))
