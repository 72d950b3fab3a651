"""Payloads from the command line: JSON as an argument, from a file, or from stdin."""

import sys
from pathlib import Path
from typing import Any

from faas.cli.failures import Failed
from faas.json_values import NotJson, loads

MAX_BYTES = 64 * 1024 * 1024
"""What is read of a file at all; a deployment takes less, and says how much."""


def read_payload(argument: str | None) -> Any:
    """The JSON of `argument`: text, `@FILE`, or `-` for stdin. Without one, null."""
    if argument is None:
        return None
    text, where = _read(argument)
    try:
        return loads(text)
    except NotJson as error:
        hint = ""
        if where == "The payload":
            hint = f" A string needs quotes of its own: '\"{argument[:20]}\"'."
            if argument.startswith("{'"):
                hint = ' JSON quotes by "…".'
        raise Failed(f"{where} is no JSON: {error}.{hint}") from error


def _read(argument: str) -> tuple[bytes, str]:
    if argument == "-":
        return sys.stdin.buffer.read(MAX_BYTES), "What stdin has"
    if not argument.startswith("@"):
        return argument.encode(errors="surrogateescape"), "The payload"
    path = Path(argument[1:])
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Failed(f"{path} is larger than any payload can be ({MAX_BYTES >> 20} MiB).")
        return path.read_bytes(), str(path)
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.") from error
