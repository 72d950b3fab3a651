"""Logs of children, kept from growing for ever."""

import shutil
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""A log that is longer becomes `….log.1`, and what was that goes."""


def rotate(directory: Path, max_bytes: int = MAX_BYTES) -> None:
    """Rotate the logs in `directory` that have grown too long.

    Their writers hold them open, and append: so what is in them is copied and cut
    off. A line written between the two is lost.
    """
    for log in directory.glob("*.log"):
        if log.stat().st_size > max_bytes:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            with log.open("r+b") as file:
                file.truncate()


def tail(log: Path, lines: int = 10) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
