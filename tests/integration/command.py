"""The command `faas` as people run it, and golden files of what it says."""

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"

_PHASES = "queued|assigned|startup|load|run|report|duration"
_SECONDS = f"{_PHASES}|after|cpu_time|waiting|p50|p90|p99"

# What differs from run to run, and what stands for it.
_VARYING = (
    (r"(func|inv|worker|sched)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"\1-<uuid>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<time>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "<clock>"),
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r'("(?:etag|host|boot_id|version_tag)": )"[^"]*"', r'\1"<text>"'),
    (rf'("(?:{_SECONDS})": )"[^"]*"', r'\1"<seconds>"'),
    (r'("(?:peak_memory_bytes|memory_time)": )"\d+"', r'\1"<bytes>"'),
    (r"(COMPLETED|FAILED)( +\d+ +)\d+(\.\d+)?s *", r"\1\2<seconds> "),
    (rf"^({_PHASES})( +\d+).*", r"\1\2  <seconds>"),
    (r"\+\d+(\.\d+)?s\b", "+<seconds>"),
    (rf"\b(after|waiting|{_PHASES}|CPU) (\d+(\.\d+)? ?s\b|unknown)", r"\1 <seconds>"),
    (r"having used .*? at most", "having used <much> at most"),
    (r"\b(cold|warm|prewarmed) sandbox", "<kind> sandbox"),
    (r"^(etag|host|boot_id) .*", r"\1  <text>"),
    (r"(start_kind\W+)[A-Z]+", r"\1<kind>"),
    (r"\b\d/4\b", "<running>/4"),
    (r'("running": )\d+', r"\1<running>"),
    (r"^running +\d+\n", ""),
    (rf"\b{re.escape(socket.gethostname())}\b", "<host>"),
    (r"(?<=\S) {2,}", "  "),
    (rf"^( +(?:{_SECONDS}): ).*", r"\1<seconds>"),
    (r"^( +peak_memory_bytes: ).*", r"\1<bytes>"),
)


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


class Command:
    """`faas`, with a server and a home of its own."""

    def __init__(self, url: str, home: Path, faas: Path | None = None) -> None:
        self.faas = faas or Path(sys.executable).with_name("faas")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FAAS_")},
            "FAAS_SERVER": url,
            "XDG_CONFIG_HOME": str(home),
            "COLUMNS": "100",
        }

    def popen(self, *arguments: str, **options: object) -> "subprocess.Popen[str]":
        """Start it."""
        values: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        values |= {"stderr": subprocess.PIPE, "text": True, "env": self.environment, **options}
        return subprocess.Popen([str(self.faas), *arguments], **values)

    def __call__(self, *arguments: str, stdin: str = "", **options: object) -> Said:
        """Run it to its end."""
        process = self.popen(*arguments, **options)
        try:
            out, err = process.communicate(stdin, timeout=300)
        finally:
            process.kill()
        return Said(process.returncode, out, err)

    def ok(self, *arguments: str, stdin: str = "", **options: object) -> Said:
        """Run it to its good end."""
        said = self(*arguments, stdin=stdin, **options)
        assert said.code == 0, said
        return said


def settled(text: str) -> str:
    """`text` without what differs from run to run."""
    for pattern, stand_in in _VARYING:
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return text


def assert_golden(name: str, said: str, *, whole: bool = True) -> None:
    """It says what the file says, or, where not `whole`, all its lines and perhaps more.

    UPDATE_GOLDEN=1 writes the file; `make golden` does it for all.
    """
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(settled(said))
    found, wanted = settled(said), file.read_text()
    if not whole:
        # A field that an API gained is no fault of the command; nor is where one stands,
        # which what is nothing yet does last.
        there = Counter(line.rstrip(",") for line in found.splitlines())
        lost = Counter(line.rstrip(",") for line in wanted.splitlines()) - there
        assert not lost, f"not said: {list(lost)}"
        return
    assert found == wanted
