"""Somebody who does what a page of the documentation says.

A page's blocks are followed in order: one with a title is a file, `console` has
commands and what they say, `python` runs. In what is said `…` stands for anything.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PAGE_TIMEOUT_S = 1800
"""A page has dozens of commands, each a process: on a loaded machine that is minutes."""
_COMMAND_TIMEOUT_S = 600

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    folder: Path
    environment: dict[str, str]
    program: str = ""
    ran: list[tuple[str, float, float]] = field(default_factory=list)
    """Each command, and when it began and ended, by the monotonic clock."""

    def follow(self, page: str) -> None:
        for language, title, text in _BLOCK.findall(page):
            if title:
                file = self.folder / title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            elif language == "console":
                for command, said in commands(text):
                    self.run(command, said)
            elif language == "python":
                self.program += text
        if self.program:
            (self.folder / "page.py").write_text(self.program)
            self.run(f"{sys.executable} page.py", None)

    def run(self, command: str, wanted: str | None) -> None:
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        self.ran.append((command, began, time.monotonic()))
        said = done.stdout
        if done.returncode:
            said += f"[exit code {done.returncode}]\n"
        if wanted is None:
            assert done.returncode == 0, said
            return
        pattern = ".*".join(map(re.escape, wanted.strip().split("…")))
        assert re.fullmatch(pattern, said.strip(), re.DOTALL), f"$ {command}\n{said}"


def commands(text: str) -> list[tuple[str, str]]:
    """Commands, and what each says."""
    found = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(each.partition("\n")[0], each.partition("\n")[2]) for each in found]
