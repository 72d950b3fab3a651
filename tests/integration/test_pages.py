"""The tutorial and the how-to pages do as they are written.

A page's blocks are followed in order: one with a title is a file, `console` has
commands and what they say, `python` runs. In what is said `…` stands for anything.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.platform import Platform

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    *("tutorial.md", "how-to/command-line.md", "how-to/python-client.md"),
    "how-to/from-lambda.md",
]
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    folder: Path
    environment: dict[str, str]
    program: str = ""

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
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
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


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_as_it_is_written(platform: Platform, tmp_path: Path, page: str):
    bin_ = str(Path(sys.executable).parent)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("FAAS_")},
        "FAAS_SERVER": platform.url,
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "127.0.0.1",
    }
    Reader(tmp_path, environment).follow((DOCS / page).read_text())


def test_links_between_pages_lead_somewhere():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(DOCS.parent)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []
