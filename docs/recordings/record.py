"""Records what the command says, for the documentation: `make recordings`.

Each session's commands are run at a real terminal, against a real platform. What they
write is kept as an asciicast and drawn as an animation. What differs from run to run,
ids and the time that something took, is replaced by what stands for it, and the
times of the recording are a script's: so the same output makes the same file.
"""

import argparse
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 84
PROMPT = "\x1b[32m$\x1b[0m "
KEYS = 3
"""How many keys one frame shows: each frame costs two kilobytes."""
# Seconds.
KEY, ENTER, LINE, READ, END = 0.035, 0.35, 0.07, 1.2, 3.0
# What a spinner draws between hiding the cursor and showing it, and takes away again.
_SPINNER = re.compile(rb"\x1b\[\?25l.*?\x1b\[\?25h\s*\x1b\[1A\x1b\[2K", re.DOTALL)
_VARYING = (
    (
        re.compile(rb"inv-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        b"inv-01a2f3c4-7b1e-\xe2\x80\xa6",
    ),
    (re.compile(rb"\(\d+ ms\)"), b"(52 ms)"),
)


@dataclass(frozen=True)
class Session:
    """What is typed, among which files."""

    commands: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


HELLO = """\
def handler(payload, context):
    print("greeting", payload["name"])
    return {"hello": payload["name"], "attempt": context.attempt}
"""
DIVIDE = 'def handler(payload):\n    return 1 / payload["by"]\n'
STEPS = """\
import time

def handler(payload):
    for step in ("fetching", "resizing", "storing"):
        print(step, flush=True)
        time.sleep(payload["pause"])
    return "done"
"""

SESSIONS = {
    "hello": Session(
        (
            "cat hello.py",
            "faas deploy hello.py",
            'faas invoke hello \'{"name": "Ada"}\'',
            "faas logs hello",
            "faas deploy hello.py --memory 256 --env TONE=warm",
        ),
        {"hello.py": HELLO},
    ),
    "failure": Session(
        (
            "faas deploy divide.py",
            "faas invoke divide '{\"by\": 0}'",
            'sed -i \'s/payload\\["by"\\]/(payload["by"] or 1)/\' divide.py',
            "faas deploy divide.py",
            "faas invoke divide '{\"by\": 0}'",
            "faas dlq redrive --function divide --status failed --latest -o name",
        ),
        {"divide.py": DIVIDE},
    ),
    "follow": Session(
        (
            "faas deploy thumbnail.py",
            "faas invoke thumbnail '{\"pause\": 0.2}' --follow",
            "faas invoke thumbnail '{\"pause\": 0}' --async",
        ),
        {"thumbnail.py": STEPS},
    ),
}


def main() -> None:
    """Record all, against a platform of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faas-recordings-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL's user, where we are root, gets through
        data = ["--data-dir", f"{directory}/data"]
        faas = str(Path(sys.executable).with_name("faas"))
        options = ["--port", "0", "--workers", "1", "--runtime", "process", "--detach"]
        subprocess.run([faas, "up", *data, *options], check=True, stdout=subprocess.DEVNULL)
        try:
            status = subprocess.run(
                [faas, "status", *data, "-o", "json"], check=True, capture_output=True
            )
            url = json.loads(status.stdout)["url"]
            for name, session in SESSIONS.items():
                cast = record(session, url)
                (HERE / f"{name}.cast").write_text(cast)
                (HERE / f"{name}.svg").write_text(draw(cast))
                print(f"{name}.cast, {name}.svg")
        finally:
            subprocess.run([faas, "down", *data], check=False)


def record(session: Session, url: str) -> str:
    """The asciicast of a session against the platform at `url`."""
    with tempfile.TemporaryDirectory(prefix="faas-session-") as directory:
        for file, text in session.files.items():
            (Path(directory) / file).write_text(text)
        outputs = [_run(command, Path(directory), url) for command in session.commands]
    events = list(_events(session.commands, outputs))
    lines = sum(text.count("\n") for _, text in events) + 1
    header = {"version": 2, "width": WIDTH, "height": lines, "env": {"TERM": "xterm-256color"}}
    rows = [header, *([round(time, 3), "o", text] for time, text in events)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def draw(cast: str) -> str:
    """The animation of an asciicast: a file that needs no other."""
    with tempfile.TemporaryDirectory() as directory:
        recorded, drawn = Path(directory) / "session.cast", Path(directory) / "session.svg"
        recorded.write_text(cast)
        command = [sys.executable, "-m", "termtosvg", "render", recorded, drawn]
        options = ["--template", "window_frame", "--loop-delay", str(int(END * 1000))]
        subprocess.run([*command, *options], check=True, capture_output=True)
        return _still_where_wanted(drawn.read_text())


def _still_where_wanted(drawn: str) -> str:
    """The same, but the last frame alone for those who want nothing to move."""
    last = re.findall(r"100\.000%\{(transform:[^}]+)\}", drawn)[0]
    style = (
        "@media (prefers-reduced-motion: reduce)"
        f" {{#screen_view {{animation: none; {last}}}}}\n        "
    )
    before, end, after = drawn.rpartition("</style>")
    return before + style + end + after


def _events(commands: tuple[str, ...], outputs: list[str]) -> Iterator[tuple[float, str]]:
    time = 0.2
    for command, output in zip(commands, outputs, strict=True):
        yield time, PROMPT
        time += ENTER
        for start in range(0, len(command), KEYS):
            yield time, command[start : start + KEYS]
            time += KEYS * KEY
        time += ENTER
        yield time, "\r\n"
        time += ENTER
        for line in output.splitlines(keepends=True):
            yield time, line
            time += LINE
        time += READ
    yield time, PROMPT


def _run(command: str, directory: Path, url: str) -> str:
    """What a command writes to a terminal."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("FAAS_") and k != "NO_COLOR"}
    environment = {
        **ours,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FAAS_SERVER": url,
        "XDG_CONFIG_HOME": str(directory / ".config"),
        "TERM": "xterm-256color",
        "COLUMNS": str(WIDTH),
        "NO_PROXY": "127.0.0.1",
    }
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    ):
        os.close(slave)
        written = b""
        try:
            while chunk := os.read(master, 65536):
                written += chunk
        except OSError:  # how a terminal ends
            pass
        os.close(master)
    written = _SPINNER.sub(b"", written)
    for pattern, stand_in in _VARYING:
        written = pattern.sub(stand_in, written)
    return written.decode()


if __name__ == "__main__":
    main()
