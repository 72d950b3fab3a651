"""A network namespace for a worker, in which packets can be dropped."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# 198.18.0.0/15 is for tests of networks; the last octets are pairs of two ends.
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Namespace:
    """One namespace, linked to where we are by a pair of interfaces."""

    name: str
    outer: str
    """The address of our end."""

    @property
    def prefix(self) -> list[str]:
        """What a command is run under, to be in it."""
        return ["ip", "netns", "exec", self.name]

    @contextmanager
    def dropping(self, *chains: str) -> Iterator[None]:
        """Drop what comes in (`INPUT`), goes out (`OUTPUT`), or both."""
        for chain in chains:
            run(*self.prefix, "iptables", "-A", chain, "-j", "DROP")
        try:
            yield
        finally:
            for chain in chains:
                run(*self.prefix, "iptables", "-D", chain, "-j", "DROP")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace until the block ends. Needs root."""
    number = os.getpid() * 16 + next(_NUMBERS)
    name, ours, theirs = (f"{kind}{number:x}" for kind in ("faas-", "fo", "fi"))
    block = f"198.{18 + (number >> 14 & 1)}.{number >> 6 & 255}.{(number & 63) << 2}"
    base, last = block.rpartition(".")[::2]
    outer, inner = (f"{base}.{int(last) + offset}" for offset in (1, 2))
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        run("ip", "address", "add", f"{outer}/30", "dev", ours)
        run("ip", "link", "set", ours, "up")
        run("ip", "-n", name, "address", "add", f"{inner}/30", "dev", theirs)
        run("ip", "-n", name, "link", "set", theirs, "up")
        yield Namespace(name, outer)
    finally:
        # Its interface goes with it, and so does the other end.
        run("ip", "netns", "delete", name)


def run(*command: str) -> None:
    """Run a command of the system's, which must succeed."""
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr}"
