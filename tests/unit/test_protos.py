"""The protos: linted, formatted, compatible with what was released, and what is made of them."""

import filecmp
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from openapi_spec_validator import validate

from services.gateway import assets
from services.gateway.public import PUBLIC_SERVICES

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BUF = Path(sys.executable).with_name("buf")
RELEASED = PROTO / "released.binpb"
# Images are judged by this: buf.yaml's rules are of its modules.
BREAKING = json.dumps({"version": "v2", "breaking": {"use": ["WIRE_JSON"]}})


def buf(*arguments: object, cwd: Path = PROTO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, *map(str, arguments)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )


@pytest.mark.parametrize("command", [("lint",), ("format", "--diff", "--exit-code")])
def test_buf_finds_nothing(command: tuple[str, ...]) -> None:
    found = buf(*command)
    assert found.returncode == 0, found.stdout


def broken(directory: Path) -> str:
    """What in the protos of `directory` would break a client of what was released."""
    image = directory / "now.binpb"
    built = buf("build", "--path", "faas", "-o", image, cwd=directory)
    assert built.returncode == 0, built.stdout
    found = buf(
        *("breaking", image, "--against", RELEASED, "--exclude-imports", "--config", BREAKING)
    )
    assert bool(found.stdout) == bool(found.returncode), found
    return found.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    directory = tmp_path / "proto"
    shutil.copytree(PROTO, directory, ignore=shutil.ignore_patterns("*.binpb", "*.py"))
    return directory


def test_clients_of_what_was_released_are_not_broken(copy: Path) -> None:
    assert broken(copy) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string name = 2;", "string name = 99;"),
        ("string name = 2;", "string title = 2;"),
        ("string name = 2;", "bytes name = 2;"),
        ("string name = 2;", ""),
        ("CODE_FORMAT_ZIP = 2;", "CODE_FORMAT_ZIPPED = 2;"),
    ],
)
def test_what_breaks_them_is_found(copy: Path, old: str, new: str) -> None:
    file = copy / "faas/v1/function.proto"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert broken(copy)


def test_what_is_made_from_the_protos_is_current(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, PROTO / "generate.py", "--out", tmp_path],
        check=True,
        capture_output=True,
        timeout=240,
    )
    made = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert len(made) > 30
    old = [str(name) for name in made if not _same(ROOT / name, tmp_path / name)]
    assert old == [], "run `make protos`"
    stale = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "faas" / "v1").glob("*_pb2*")
        if file.relative_to(ROOT) not in made
    }
    assert stale == set()


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and filecmp.cmp(one, other, shallow=False)


def test_the_openapi_document_is_valid_and_has_every_binding() -> None:
    document = json.loads(assets.OPENAPI.read_text())
    validate(document)
    operations = {
        operation.get("operationId", "")
        for path in document["paths"].values()
        for operation in path.values()
    }
    pool = descriptor_pool.Default()
    for name in PUBLIC_SERVICES:
        for method in pool.FindServiceByName(name).methods:
            assert any(method.name in each for each in operations), method.full_name
