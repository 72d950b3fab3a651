"""The command where only the client is installed: small, and whole."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

WITHOUT = """
import importlib.abc, sys
absent = set(sys.argv.pop(1).split(","))
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent or name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "faas"
from faas.cli import main
main()
"""


def imports_of(extra: str) -> set[str]:
    """What the packages of an extra are imported as, less what others bring as well."""
    names = {
        re.split(r"[\[<>=; ]", line)[0].lower() for line in PROJECT["optional-dependencies"][extra]
    }
    found = {
        name
        for name, distributions in packages_distributions().items()
        if {d.lower() for d in distributions} <= names
    }
    assert {"sqlalchemy", "envoy", "aiohttp", "psutil"} <= found
    return found


def run(absent: set[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(sorted(absent)), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_needs_no_server() -> None:
    shown = run(imports_of("server"), "--help")
    assert shown.returncode == 0, shown.stderr
    for command in ("up", "down", "status", "migrate"):
        assert re.search(rf"\b{command}\b", shown.stdout)


@pytest.mark.parametrize(
    "command", [["up"], ["down"], ["status"], ["migrate", "--database-url", "postgresql:///x"]]
)
def test_a_command_that_needs_the_servers_says_so(command: list[str]) -> None:
    ended = run(imports_of("server"), *command)
    assert ended.returncode == 1
    assert "pip install 'faas-mesh[server]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_command_whose_code_is_not_there_breaks_no_other() -> None:
    absent = {"services"}
    assert run(absent, "--help").returncode == 0
    ended = run(absent, "up")
    assert ended.returncode == 1
    assert "`faas up` needs services" in ended.stderr
