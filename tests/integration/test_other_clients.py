"""Clients in other languages, made from proto/ and from the OpenAPI document.

The same short program in each, docs/examples/clients, says the same. What makes the
clients is fetched from npm and PyPI.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform import Platform

# Go compiles its standard library first, and other work on the machine is not over.
pytestmark = pytest.mark.timeout(1000)

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
EXAMPLES = ROOT / "docs" / "examples" / "clients"
OPENAPI_GENERATOR = "openapi-python-client==0.29.1"
BIN = Path(sys.executable).parent

_numbers = itertools.count()
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH")


@pytest.fixture
def example(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the example that the test names."""
    name = request.param
    return Path(shutil.copytree(EXAMPLES / name, tmp_path / name))


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PROTO": str(PROTO), "NO_PROXY": "127.0.0.1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_says_it_all(said: str, name: str) -> None:
    assert [json.loads(line) for line in said.splitlines()] == [
        {"deployed": name, "version": 1},
        {"status": "COMPLETED", "result": {"hello": "Ada"}},
        {"refused": "FUNCTION_NOT_FOUND"},
    ]


@pytest.fixture
def name() -> str:
    return f"others-{os.getpid()}-{next(_numbers)}"


@needs_npm
@pytest.mark.parametrize("example", ["node-grpc"], indirect=True)
def test_node_over_grpc(platform: Platform, example: Path, name: str):
    run("npm", "install", "--no-audit", "--no-fund", cwd=example)
    assert_says_it_all(run("node", "main.js", platform.url, name, cwd=example), name)


@needs_npm
@pytest.mark.parametrize("example", ["grpc-web"], indirect=True)
def test_grpc_web(platform: Platform, example: Path, name: str):
    run("npm", "install", "--no-audit", "--no-fund", cwd=example)
    plugin = {
        "local": str(example / "node_modules" / ".bin" / "protoc-gen-es"),
        "out": str(example / "gen"),
        "opt": ["target=js", "import_extension=js"],
        "include_imports": True,
    }
    template = json.dumps({"version": "v2", "plugins": [plugin]})
    run(BIN / "buf", "generate", PROTO, "--template", template, cwd=example)
    assert_says_it_all(run("node", "main.js", platform.url, name, cwd=example), name)


@pytest.mark.parametrize("example", ["go-http"], indirect=True)
def test_go_over_http(platform: Platform, example: Path, name: str):
    cache = str(example / "cache")
    said = run(BIN / "go", "run", "main.go", platform.url, name, cwd=example, GOCACHE=cache)
    assert_says_it_all(said, name)


@pytest.mark.parametrize("example", ["python-openapi"], indirect=True)
def test_python_from_the_openapi_document(platform: Platform, example: Path, name: str):
    run(BIN / "uv", "venv", "--python", sys.executable, "venv", cwd=example)
    python = example / "venv" / "bin" / "python"
    run(BIN / "uv", "pip", "install", "--python", python, OPENAPI_GENERATOR, cwd=example)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # it formats by ruff
    document = ROOT / "services" / "gateway" / "openapi.json"
    command = [python.parent / "openapi-python-client", "generate", "--path", document]
    run(*command, "--meta", "none", "--output-path", "faas_http", cwd=example, PATH=path)
    assert_says_it_all(run(python, "main.py", platform.url, name, cwd=example), name)
