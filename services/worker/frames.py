"""Frames between worker and shim, as `runtimes/CONTRACT.md` has them.

What comes from a sandbox may be anything: lengths are checked before a byte is
read for them, so nothing that a function sends makes the worker's memory grow.
"""

import asyncio
import codecs
import hashlib
import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from services.worker.runtime import INLINE_BYTES, FileContent

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024 * 1024
# Of a file that is sent or written.
PIECE_BYTES = 256 * 1024

_LENGTHS = struct.Struct(">II")


class BrokenFrame(Exception):
    """What came is no frame. The text says what is wrong with it."""


class BodyTooLarge(BrokenFrame):
    """The frame's body is larger than its reader takes."""


class NoRoom(Exception):
    """A large body cannot be kept on this machine's disk."""


class ConnectionEnded(Exception):
    """The other side is gone: it closed the connection, or died."""


@dataclass(frozen=True)
class Frame:
    """One message: a JSON object with a `type`, and bytes."""

    header: Mapping[str, Any]
    body: bytes = b""
    large: FileContent | None = None
    """Instead of `body`, what is in a file."""

    @property
    def type(self) -> str:
        """What it says."""
        return str(self.header["type"])


class FrameReader(asyncio.StreamReader):
    """A stream of frames that knows whether more has come than was asked for."""

    def __init__(self) -> None:
        """Of nothing, yet."""
        super().__init__()
        self.unread_bytes = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """More has come."""
        self.unread_bytes += len(data)
        super().feed_data(data)

    async def readexactly(self, n: int) -> bytes:
        """The next `n` bytes. Raises asyncio.IncompleteReadError."""
        data = await super().readexactly(n)
        self.unread_bytes -= n
        return data


async def connect_frames(
    connection: socket.socket,
) -> tuple[FrameReader, asyncio.StreamWriter]:
    """Read and write frames on a connected unix socket. Raises OSError."""
    loop = asyncio.get_running_loop()
    reader = FrameReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_unix_connection(lambda: protocol, sock=connection)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def read_frame(
    reader: asyncio.StreamReader,
    max_body_bytes: int = MAX_BODY_BYTES,
    large_file: Path | None = None,
) -> Frame:
    """The next frame. A body of more than INLINE_BYTES goes to `large_file`, flushed.

    Raises BrokenFrame, BodyTooLarge (nothing of the body has been read), NoRoom, and
    ConnectionEnded, also in the midst of a frame.
    """
    try:
        header_length, body_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if header_length > MAX_HEADER_BYTES:
            raise BrokenFrame(f"a header of {header_length} bytes")
        if body_length > MAX_BODY_BYTES:
            raise BrokenFrame(f"a body of {body_length} bytes")
        header = _header(await reader.readexactly(header_length))
        if body_length > max_body_bytes:
            raise BodyTooLarge(f"a body of {body_length} bytes")
        if body_length > INLINE_BYTES and large_file is not None:
            return Frame(header, large=await _spill(reader, body_length, large_file))
        return Frame(header, await reader.readexactly(body_length))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ConnectionEnded from error


async def write_frame(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Send `frame`. Raises ConnectionEnded."""
    header = json.dumps(frame.header, ensure_ascii=False, separators=(",", ":")).encode()
    large = frame.large
    try:
        length = len(frame.body) if large is None else large.size_bytes
        # One write, which is one system call, of what is mostly small.
        writer.write(b"".join((_LENGTHS.pack(len(header), length), header, frame.body)))
        await writer.drain()
        if large is not None:
            with large.file.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    writer.write(piece)
                    await writer.drain()
    except OSError as error:
        raise ConnectionEnded from error


async def _spill(reader: asyncio.StreamReader, length: int, file: Path) -> FileContent:
    """The next `length` bytes, in a file. Raises NoRoom."""
    try:
        output = file.open("wb", buffering=0)
    except OSError as error:
        raise NoRoom(str(error)) from error
    digest, text = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    is_text, left = True, length

    def keep(piece: bytes) -> None:
        nonlocal is_text
        _write_all(output, piece)
        digest.update(piece)
        try:
            if is_text:
                text.decode(piece, left == 0)
        except UnicodeDecodeError:
            is_text = False

    with output:
        while left:
            piece = await reader.readexactly(min(left, PIECE_BYTES))
            left -= len(piece)
            try:
                await asyncio.to_thread(keep, piece)
            except OSError as error:
                raise NoRoom(str(error)) from error
        try:
            await asyncio.to_thread(os.fsync, output.fileno())
        except OSError as error:
            raise NoRoom(str(error)) from error
    return FileContent(file, length, digest.hexdigest(), is_text)


def _write_all(output: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[output.write(rest) :]


def _header(data: bytes) -> Mapping[str, Any]:
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BrokenFrame("a header that is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise BrokenFrame("a header that is not an object with a type")
    return header
