"""Load by h2load (Debian: nghttp2-client), one request at a time for each client."""

import statistics
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class LoadError(Exception):
    """Not every request was answered well; the text says what the tool counted."""


@dataclass(frozen=True)
class Load:
    """One request, made again and again."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    http1: bool

    @classmethod
    def json(cls, url: str, body: bytes) -> "Load":
        """HTTP/1.1 with a JSON body, as curl sends it."""
        return cls(url, body, {"content-type": "application/json"}, http1=True)

    @classmethod
    def grpc(cls, url: str, message: bytes) -> "Load":
        """A gRPC call, as its wire has it: HTTP/2, the message behind five bytes."""
        headers = {"content-type": "application/grpc", "te": "trailers"}
        return cls(url, struct.pack(">BI", 0, len(message)) + message, headers, http1=False)


@dataclass(frozen=True)
class Measured:
    """What came of it. Latencies in milliseconds, sorted."""

    latencies_ms: list[float]
    seconds: float
    clients: int
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    """CPU time of each part, in microseconds a call."""

    @property
    def count(self) -> int:
        """Requests answered."""
        return len(self.latencies_ms)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.count / self.seconds

    @property
    def p50(self) -> float:
        """The median, ms."""
        return statistics.median(self.latencies_ms)

    @property
    def p99(self) -> float:
        """The 99th percentile, ms."""
        return self.latencies_ms[min(self.count - 1, int(self.count * 0.99))]


def run(load: Load, clients: int, *, seconds: float = 0, count: int = 0) -> Measured:
    """Make requests for so long, or so many. Raises LoadError."""
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory, "body"), Path(directory, "log")
        body.write_bytes(load.body)
        command = ["h2load", "-t1", f"-c{clients}", "-m1", f"-d{body}", f"--log-file={log}"]
        command += [f"-H{name}: {value}" for name, value in load.headers.items()]
        command += ["--h1"] if load.http1 else []
        command += [f"-n{count}"] if count else [f"-D{round(seconds * 1000)}ms"]
        ran = subprocess.run(
            [*command, load.url], capture_output=True, text=True, timeout=seconds + 300, check=False
        )
        if ran.returncode != 0:
            raise LoadError(ran.stdout + ran.stderr)
        # Of each request: when it began (microseconds since 1970), status, microseconds.
        lines = [line.split() for line in log.read_text().splitlines()]
    bad = [line for line in lines if line[1] != "200"]
    if bad or not lines:
        raise LoadError(f"{len(bad)} of {len(lines)} requests failed:\n{ran.stdout[-2000:]}")
    begun, ended = int(lines[0][0]), max(int(line[0]) + int(line[2]) for line in lines)
    latencies = sorted(int(line[2]) / 1000 for line in lines)
    return Measured(latencies, (ended - min(begun, *(int(x[0]) for x in lines))) / 1e6, clients)
