"""The reference is current, and leaves nothing out."""

import importlib.util
import re
from pathlib import Path

import pytest
from google.rpc import code_pb2

from services.errors import by_reason
from services.gateway import assets
from services.gateway.descriptors import Descriptors

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = ("settings.md", "errors.md", "cli.md", "api.md")

_spec = importlib.util.spec_from_file_location("reference", REFERENCE / "generate.py")
assert _spec
assert _spec.loader
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_made_from_the_code_is_current(page: str, tmp_path: Path) -> None:
    reference.generate(tmp_path)
    assert (REFERENCE / page).read_text() == (tmp_path / page).read_text(), "run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    classes = list(reference.settings_classes())
    assert {each.__module__.split(".")[1] for each in classes} >= {
        "functions",
        "gateway",
        "invocations",
        "worker",
    }
    for each in classes:
        for name, field in each.model_fields.items():
            assert field.description, f"{each.__module__}.{name}"


def test_every_variable_that_the_client_reads_is_documented() -> None:
    pages = "".join(file.read_text() for file in REFERENCE.glob("*.md"))
    for file in (ROOT / "faas").rglob("*.py"):
        if "v1" not in file.parts:
            for name in re.findall(r'"(FAAS_[A-Z_]+)"', file.read_text()):
                assert name in pages, f"{file.name}: {name}"


def test_every_variable_of_the_runtimes_is_in_the_contract() -> None:
    contract = (ROOT / "runtimes" / "CONTRACT.md").read_text()
    # The prefix of codes; what a variable is called is read from code of all three languages.
    # The worker's own settings have a page of their own.
    codes = {"FUNCTION_ERROR", "FUNCTION_CRASHED"}
    files = [
        file
        for folder in ("runtimes", "services/worker")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".js", ".go", ".sh") or file.name.startswith("Dockerfile")
    ]
    assert len(files) > 10
    found = set()
    for file in files:
        found |= set(re.findall(r"\b((?:FUNCTION|FAAS)_[A-Z_]*[A-Z])\b", file.read_text()))
    undocumented = {name for name in found - codes if f"`{name}`" not in contract}
    undocumented -= {name for name in undocumented if name.startswith("FAAS_WORKER_")}
    assert undocumented == set()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "runtimes").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_pictures_are_small_and_on_a_page() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture
        assert f"images/{picture.name})" in pages, picture


COMMENTS = Descriptors.parse(assets.DESCRIPTORS.read_bytes())


def test_every_rpc_message_and_enum_value_says_what_it_is() -> None:
    ours = {name: s for name, s in COMMENTS.services.items() if name.startswith("faas.")}
    assert len(ours) >= 4
    for name, service in ours.items():
        assert name in COMMENTS.comments, name
        for method in service.method:
            assert f"{name}.{method.name}" in COMMENTS.comments, f"{name}.{method.name}"
    for value in COMMENTS.enums["faas.v1.ErrorReason"].value:
        if value.number:
            assert f"faas.v1.ErrorReason.{value.name}" in COMMENTS.comments, value.name


def test_every_public_rpc_names_errors_that_there_are() -> None:
    known = {value.name for value in COMMENTS.enums["faas.v1.ErrorReason"].value}
    for name, comment in COMMENTS.comments.items():
        if name.count(".") == 3 and name.rpartition(".")[0] in COMMENTS.services:
            _, _, listed = comment.partition("Errors:")
            for reason in re.findall(r"\b[A-Z]+_[A-Z_]+\b", listed):
                assert reason in known, f"{name}: {reason}"


def test_a_reason_says_the_status_that_its_error_has() -> None:
    table = by_reason()
    assert len(table) > 10
    for reason, error in table.items():
        assert (
            code_pb2.Code.Name(error.code) in COMMENTS.comments[f"faas.v1.ErrorReason.{reason}"]
        ), reason
