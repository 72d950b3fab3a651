"""A sandbox's output as lines, whatever the pieces it comes in."""

import asyncio
import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker import output
from services.worker.output import LINE_BYTES, MAX_LINE_BYTES, PIECE_BYTES, Output
from services.worker.runtime import Line, OutputLimits, Stream

LARGE = OutputLimits(log_bytes=10**9, kill_bytes=10**9)


def printed(*pieces: bytes, limits: OutputLimits = LARGE) -> tuple[list[str], Output]:
    lines: list[Line] = []
    fed = Output(lines.append, limits)
    for piece in pieces:
        fed.feed(Stream.STDOUT, piece)
    fed.end(Stream.STDOUT)
    return [line.text for line in lines], fed


def test_lines_end_at_newlines_alone() -> None:
    assert printed(b"a\nb\r\n\n\tc\x0bd")[0] == ["a", "b\r", "", "\tc\x0bd"]
    assert printed(b"")[0] == []
    assert printed(b"\n")[0] == [""]


def test_a_character_may_come_in_pieces() -> None:
    text = "grüße 世界 \U0001f680\n".encode()
    assert printed(*(bytes([byte]) for byte in text))[0] == ["grüße 世界 \U0001f680"]


def test_what_is_no_text_is_replaced() -> None:
    assert printed(b"a\xffb\x00c\xe4\n")[0] == ["a\ufffdb\ufffdc\ufffd"]
    assert printed(b"cut \xf0\x9f\x9a")[0] == ["cut \ufffd"]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_the_pieces_make_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    text = codecs.decode(whole, "utf-8", "replace").replace("\0", "\ufffd")
    expected = text.split("\n")
    if expected[-1] == "":
        expected.pop()
    assert printed(*pieces)[0] == printed(whole)[0] == expected


@pytest.mark.parametrize("character", ["x", "é", "世", "\U0001f680"])
def test_a_long_line_is_cut_between_characters(character: str) -> None:
    text = "a" + character * (3 * MAX_LINE_BYTES // len(character.encode()))
    data = text.encode()
    lines, _ = printed(*(data[at : at + 5000] for at in range(0, len(data), 5000)), b"\nafter")
    assert lines[-1] == "after"
    assert "".join(lines[:-1]) == text
    assert all(len(line.encode()) <= MAX_LINE_BYTES for line in lines)


def test_what_is_beyond_the_cap_is_dropped_and_said() -> None:
    line_bytes = 5 + LINE_BYTES
    lines, fed = printed(b"12345\n" * 3, limits=OutputLimits(log_bytes=3 * line_bytes))
    assert (lines, fed.truncated) == (["12345"] * 3, False)
    limits = OutputLimits(log_bytes=3 * line_bytes + LINE_BYTES + 1)
    lines, fed = printed(b"12345\n" * 4, limits=limits)
    assert (lines, fed.truncated) == (["12345"] * 3 + ["1"], True)
    lines, fed = printed("ä".encode() * 10 + b"\n", limits=OutputLimits(log_bytes=LINE_BYTES + 3))
    assert (lines, fed.truncated) == (["ä"], True)


def test_empty_lines_are_not_free() -> None:
    lines, fed = printed(b"\n" * 100, limits=OutputLimits(log_bytes=10 * LINE_BYTES))
    assert (len(lines), fed.truncated) == (10, True)


def test_both_streams_share_the_cap_and_no_line() -> None:
    lines: list[Line] = []
    both = Output(lines.append, OutputLimits(log_bytes=6 + 3 * LINE_BYTES + 1))
    both.feed(Stream.STDOUT, b"ou")
    both.feed(Stream.STDERR, b"err\n")
    both.feed(Stream.STDOUT, b"t\n")
    both.feed(Stream.STDERR, b"more\n")
    assert [(line.stream, line.text) for line in lines] == [
        (Stream.STDERR, "err"),
        (Stream.STDOUT, "out"),
        (Stream.STDERR, "m"),
    ]
    assert both.truncated


def test_a_flood_is_noticed_though_it_is_dropped() -> None:
    limits = OutputLimits(log_bytes=10, kill_bytes=1000)
    _, calm = printed(*[b"x" * 100] * 10, limits=limits)
    assert not calm.flooded.is_set()
    lines, flood = printed(*[b"x" * 100] * 11, limits=limits)
    assert flood.flooded.is_set()
    assert sum(map(len, lines)) <= 10


async def test_draining_goes_to_the_end() -> None:
    lines: list[Line] = []
    reader = asyncio.StreamReader()
    reader.feed_data(b"one\ntwo")
    reader.feed_eof()
    await Output(lines.append, LARGE).drain(Stream.STDERR, reader)
    assert [(line.stream, line.text) for line in lines] == [
        (Stream.STDERR, "one"),
        (Stream.STDERR, "two"),
    ]


async def test_taking_lets_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SLICE_S", 0.0)
    lines: list[Line] = []
    seen: list[int] = []

    async def other() -> None:
        while True:
            seen.append(len(lines))
            await asyncio.sleep(0)

    others = asyncio.create_task(other())
    await Output(lines.append, LARGE).take(Stream.STDOUT, b"a line\n" * PIECE_BYTES)
    others.cancel()
    assert len(lines) == PIECE_BYTES
    assert len({count for count in seen if 0 < count < PIECE_BYTES}) >= 5
