"""The how-to pages do as they are written."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.pages import PAGE_TIMEOUT_S, Reader
from tests.platform import Platform

DOCS = Path(__file__).parents[2] / "docs"
# The tutorial is followed from the wheel, in tests/acceptance.
PAGES = sorted(
    str(page.relative_to(DOCS))
    for page in [DOCS / "index.md", *DOCS.glob("how-to/*.md")]
    if re.search(r"^```(console|python)", page.read_text(), re.MULTILINE)
)


@pytest.mark.timeout(PAGE_TIMEOUT_S)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_as_it_is_written(platform: Platform, tmp_path: Path, page: str):
    bin_ = str(Path(sys.executable).parent)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("FAAS_")},
        "FAAS_SERVER": platform.url,
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "127.0.0.1",
    }
    Reader(tmp_path, environment).follow((DOCS / page).read_text())


def test_links_between_pages_lead_somewhere():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(DOCS.parent)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []
