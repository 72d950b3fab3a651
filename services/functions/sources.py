"""Code as callers hand it in, as a file on this machine: measured, and checked."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from faas import handlers
from faas.v1.function_pb2 import CodeFormat
from services import archive
from services.archive import Limits
from services.errors import InvalidArchive, InvalidField, TooLarge

TEXT = CodeFormat.CODE_FORMAT_TEXT


@dataclass(frozen=True)
class Code:
    """Code in a file, and the field of the request that it came in."""

    file: Path
    code_format: CodeFormat.ValueType
    sha256: str
    size_bytes: int
    field: str
    upload: UUID | None = None
    """The upload that it came in, which can be taken once."""


@asynccontextmanager
async def received(
    chunks: AsyncIterable[bytes],
    field: str,
    *,
    code_format: CodeFormat.ValueType | None = None,
    most_bytes: int | None = None,
    upload: UUID | None = None,
) -> AsyncIterator[Code]:
    """The code that arrives in `chunks`, in a file that goes with the context.

    Without `code_format` the first bytes decide. Raises InvalidArchive, and TooLarge
    as soon as more than `most_bytes` have come.
    """
    with tempfile.NamedTemporaryFile(prefix="faas-code-") as output:
        digest, size, beginning = hashlib.sha256(), 0, b""
        async for chunk in chunks:
            size += len(chunk)
            if most_bytes is not None and size > most_bytes:
                raise TooLarge(
                    f"{field}: is larger than {most_bytes} bytes, which is the most"
                    " that this deployment takes.",
                    metadata={"limit_bytes": str(most_bytes)},
                )
            beginning = beginning or chunk[:8]
            digest.update(chunk)
            await asyncio.to_thread(output.write, chunk)
        await asyncio.to_thread(output.flush)
        if code_format is None:
            code_format = archive.detect_format(beginning, field)
        yield Code(Path(output.name), code_format, digest.hexdigest(), size, field, upload)


async def one(data: bytes) -> AsyncIterator[bytes]:
    """Bytes that came in one piece, as chunks."""
    yield data


async def settle_handler(code: Code, runtime: str, asked: str | None, limits: Limits) -> str:
    """The handler: the one that was asked for, or what the source decides.

    Raises InvalidArchive where the archive cannot be used or lacks the handler's
    file, InvalidField where text cannot have such a handler.
    """
    return await asyncio.to_thread(_settle_handler, code, runtime, asked, limits)


def _settle_handler(code: Code, runtime: str, asked: str | None, limits: Limits) -> str:
    if code.code_format == TEXT:
        if asked and handlers.module_files(runtime, asked) != handlers.module_files(
            runtime, "main"
        ):
            raise InvalidField.of("handler", "must be of the module main: the code is one file")
        return asked or handlers.detect(runtime, code.file.read_bytes())
    names = archive.check(code.file, code.code_format, limits, code.field)
    wanted = handlers.module_files(runtime, asked or "main")
    there = next((name for name in wanted if name in names), None)
    if wanted and there is None:
        files = " or ".join(wanted)
        why = f"which the handler {asked} needs" if asked else "where the handler is looked for"
        raise InvalidArchive.of(code.field, f"the archive has no {files} at its top, {why}")
    if asked:
        return asked
    source = there and archive.read_file(
        code.file,
        code.code_format,
        there,
        limits,
        most_bytes=2 * handlers.MAX_SOURCE_BYTES,
        field=code.field,
    )
    return handlers.detect(runtime, source or b"")
