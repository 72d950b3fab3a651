"""Every Dockerfile passes the linter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = Path(sys.executable).with_name("hadolint")
FILES = sorted(
    file
    for folder in ("runtimes", "deploy", "services")
    for file in (ROOT / folder).rglob("Dockerfile*")
)


def test_there_are_some() -> None:
    assert len(FILES) >= 3


@pytest.mark.skipif(sys.platform != "linux", reason="its wheel is for Linux")
@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_hadolint_finds_nothing(file: Path) -> None:
    found = subprocess.run([HADOLINT, "--no-color", file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
