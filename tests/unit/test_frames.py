"""Frames, as they come from a sandbox that may send anything."""

import asyncio
import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.frames import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    BodyTooLarge,
    BrokenFrame,
    ConnectionEnded,
    Frame,
    read_frame,
    write_frame,
)


def raw(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(body)) + header + body


async def read(data: bytes, **limits: int) -> Frame:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_frame(reader, **limits)


async def test_frames_come_out_as_they_went_in() -> None:
    near, far = socket.socketpair()
    _, writer = await asyncio.open_unix_connection(sock=near)
    reader, other = await asyncio.open_unix_connection(sock=far)
    frames = [
        Frame({"type": "hello", "protocol": 1}),
        Frame({"type": "grüße", "deep": {"a": [1, None]}}, b"\x00\xff" * 70_000),
        Frame({"type": ""}),
    ]
    for frame in frames:
        await write_frame(writer, frame)
        assert await read_frame(reader) == frame
    writer.close()
    other.close()


BROKEN = {
    "no JSON": raw(b"{"),
    "no UTF-8": raw(b'{"type":"\xff"}'),
    "a list": raw(b'["type"]'),
    "no type": raw(b"{}"),
    "a type that is no text": raw(b'{"type":1}'),
    "an empty header": raw(b""),
    "too deep": raw(b"[" * 60_000),
    "a huge header": struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
    "a huge body": struct.pack(">II", 15, MAX_BODY_BYTES + 1) + b'{"type":"result"',
    "text": b"hello, I print to the wrong descriptor\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        await read(data)


async def test_a_body_beyond_what_is_taken_is_not_read() -> None:
    data = raw(b'{"type":"result"}', b"x" * 101)
    with pytest.raises(BodyTooLarge):
        await read(data, max_body_bytes=100)
    assert (await read(data, max_body_bytes=101)).body == b"x" * 101


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 24, 25, 30])
async def test_an_end_in_the_midst(kept: int) -> None:
    data = raw(b'{"type":"result"}', b"x" * 10)
    with pytest.raises(ConnectionEnded):
        await read(data[:kept])


@given(st.binary(max_size=200))
def test_any_bytes_end_in_one_of_four_ways(data: bytes) -> None:
    async def outcome() -> None:
        try:
            frame = await read(data)
        except (BrokenFrame, ConnectionEnded):
            return
        assert isinstance(frame.type, str)
        json.dumps(frame.header)

    asyncio.run(outcome())
