"""Page tokens: opaque, good for their own request only, and never believed."""

import base64
import json
from uuid import UUID

import pytest

from faas.v1.invocation_service_pb2 import ListInvocationsRequest, ListWorkersRequest
from services.errors import InvalidPageToken
from services.pages import MAX_INTEGER, make_token, page_size, read_token

KEY = UUID("01900000-0000-7000-8000-000000000000")


def read(*position: object, types: tuple[type, ...]) -> list | None:
    request = ListInvocationsRequest()
    request.page_token = make_token(request, list(position))
    return read_token(request, *types)


def test_what_is_put_in_comes_out() -> None:
    assert read("a", 7, str(KEY), types=(str, int, UUID)) == ["a", 7, KEY]
    assert read_token(ListInvocationsRequest(), str) is None


@pytest.mark.parametrize(
    ("position", "types"),
    [
        ((), (str,)),
        (("a", "b"), (str,)),
        ((1,), (str,)),
        (("1",), (int,)),
        ((True,), (int,)),
        ((1.0,), (int,)),
        ((MAX_INTEGER + 1,), (int,)),
        ((-(2**70),), (int,)),
        (("x",), (UUID,)),
        ((1,), (UUID,)),
        ((None,), (UUID,)),
        (("a\x00",), (str,)),
        (("\ud800",), (str,)),
    ],
)
def test_a_position_that_was_made_up_is_refused(
    position: tuple[object, ...], types: tuple[type, ...]
) -> None:
    with pytest.raises(InvalidPageToken):
        read(*position, types=types)


@pytest.mark.parametrize("text", ["x", "{}", "null", "[]", "1", "[" * 100_000, "[[1]]"])
def test_what_is_no_token_is_refused(text: str) -> None:
    for token in (text, base64.urlsafe_b64encode(text.encode()).decode()):
        with pytest.raises(InvalidPageToken) as caught:
            read_token(ListInvocationsRequest(page_token=token), str)
        assert [violation.field for violation in caught.value.violations] == ["page_token"]


def test_a_token_is_good_for_its_own_request_only() -> None:
    token = make_token(ListInvocationsRequest(function_id="a"), ["x"])
    same = ListInvocationsRequest(function_id="a", page_token=token, page_size=7)
    assert read_token(same, str) == ["x"]
    for other in (
        ListInvocationsRequest(function_id="b", page_token=token),
        ListWorkersRequest(page_token=token),
    ):
        with pytest.raises(InvalidPageToken, match="another request"):
            read_token(other, str)


def test_a_token_has_no_padding_that_urls_would_escape() -> None:
    token = make_token(ListInvocationsRequest(), ["ab"])
    assert "=" not in token
    assert json.loads(base64.urlsafe_b64decode(token + "=="))[1:] == ["ab"]


def test_page_sizes() -> None:
    assert [page_size(asked) for asked in (0, 1, 1000, 1001, 2**31 - 1)] == [
        50,
        1,
        1000,
        1000,
        1000,
    ]
