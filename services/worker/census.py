"""The processes of this machine that may be a sandbox's, without reading all of /proc each time.

Most processes are strangers: they do not descend from this one and bear no mark.
Nobody becomes its descendant but by birth, and a mark is in the environment that a
process begins with, so who is a stranger once stays one, and only what is new is
looked into. Numbers are given anew only after all others were, which takes longer
than `FRESH_S`; what was learnt is forgotten after so long without a look.
"""

import os
import time
from dataclasses import dataclass

MARK = "FAAS_SANDBOX"
FRESH_S = 5.0

_PROC = "/proc"
_MARK = f"{MARK}=".encode()
_KERNEL_THREAD = 0x00200000


@dataclass(frozen=True)
class Process:
    """One process as it was found."""

    parent: int
    birth: bytes
    """When it was started: with its number, it is this process and no other."""
    of_kernel: bool


class Census:
    """What one process knows of the others."""

    def __init__(self) -> None:
        """Nothing yet: the first look is a long one."""
        self._strangers: set[int] = set()
        self._looked = float("-inf")

    def look(self) -> dict[int, Process]:
        """By number, all that are no strangers: descendants, and what bears a mark."""
        now = time.monotonic()
        if now - self._looked > FRESH_S:
            self._strangers = set()
        pids = _pids()
        self._strangers &= pids
        seen = {pid: found for pid in pids - self._strangers if (found := process(pid))}
        related = _below(os.getpid(), seen)
        for pid, found in seen.items():
            if pid not in related and (found.of_kernel or _bears_none(pid)):
                self._strangers.add(pid)
        self._looked = now
        return {pid: found for pid, found in seen.items() if pid not in self._strangers}

    def below(self, root: int) -> dict[int, Process]:
        """By number, all that descend from `root`, which does from this process."""
        seen = self.look()
        return {pid: seen[pid] for pid in _below(root, seen) if pid in seen}

    def marked(self, marks: set[bytes]) -> list[int]:
        """Who bears one of these marks; one that ends in a dash stands for all it begins."""
        entries = {_MARK + mark for mark in marks}
        prefixes = tuple(entry for entry in entries if entry.endswith(b"-"))
        return [
            pid
            for pid in self.look()
            if any(e in entries or e.startswith(prefixes) for e in environment(pid))
        ]


def descendants(root: int) -> set[int]:
    """`root` and all below it, whoever they are and whatever was known before."""
    return _below(root, {pid: found for pid in _pids() if (found := process(pid))})


def process(pid: int) -> Process | None:
    """What is known of one; None if it is gone."""
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as file:  # noqa: PTH123 - many
            # The name, in parentheses, may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return Process(int(fields[1]), fields[19], bool(int(fields[6]) & _KERNEL_THREAD))
    except (OSError, ValueError, IndexError):
        return None


def environment(pid: int) -> list[bytes]:
    """The environment that it began with; empty where that cannot be known."""
    try:
        with open(f"{_PROC}/{pid}/environ", "rb") as file:  # noqa: PTH123 - many
            return file.read().split(b"\0")
    except OSError:
        return []


def _pids() -> set[int]:
    return {int(name) for name in os.listdir(_PROC) if name.isdigit()}  # noqa: PTH208 - many


def _bears_none(pid: int) -> bool:
    """Whether it surely bears no mark: in the middle of an execve its environment is empty."""
    entries = environment(pid)
    return entries != [b""] and not any(entry.startswith(_MARK) for entry in entries)


def _below(root: int, seen: dict[int, Process]) -> set[int]:
    """`root` and its descendants."""
    children: dict[int, list[int]] = {}
    for pid, found in seen.items():
        children.setdefault(found.parent, []).append(pid)
    reached, pending = set(), [root]
    while pending:
        pid = pending.pop()
        if pid not in reached:
            reached.add(pid)
            pending += children.get(pid, [])
    return reached
