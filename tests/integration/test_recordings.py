"""The documentation's recordings show what the command says today."""

import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import faas
from tests.platform import Platform

pytestmark = pytest.mark.timeout(900)
FOLDER = Path(__file__).parents[2] / "docs/recordings"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", FOLDER / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORD = load()


@pytest.mark.parametrize("name", RECORD.SESSIONS)
def test_a_recording_is_of_today(platform: Platform, name: str):
    session = RECORD.SESSIONS[name]
    with faas.Client(platform.url) as client:

        def clear() -> None:
            for file in session.files:
                with contextlib.suppress(faas.FunctionNotFound):
                    client.function(Path(file).stem).delete()

        clear()
        try:
            cast = RECORD.record(session, platform.url)
        finally:
            clear()
    assert cast == (FOLDER / f"{name}.cast").read_text(), "`make recordings` makes it anew"


@pytest.mark.parametrize("name", RECORD.SESSIONS)
def test_an_animation_is_of_its_recording_and_needs_nothing_else(name: str):
    drawn = (FOLDER / f"{name}.svg").read_text()
    assert RECORD.draw((FOLDER / f"{name}.cast").read_text()) == drawn
    assert "<script" not in drawn
    assert "@import" not in drawn
    assert "url(http" not in drawn


def test_every_recording_is_made_by_the_script_and_shown_somewhere():
    kinds = {f"{name}.{kind}" for name in RECORD.SESSIONS for kind in ("cast", "svg")}
    assert {file.name for file in FOLDER.iterdir() if file.is_file()} == kinds | {"record.py"}
    root = FOLDER.parents[1]
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    text = "".join(page.read_text() for page in pages)
    assert {name for name in RECORD.SESSIONS if f"recordings/{name}.svg" in text} == set(
        RECORD.SESSIONS
    )
