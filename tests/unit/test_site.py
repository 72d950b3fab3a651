"""The documentation's site: every link leads somewhere, and nothing is asked of other hosts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

# The site is built twice; a loaded machine is slow, not wrong.
pytestmark = pytest.mark.timeout(1300)

ROOT = Path(__file__).parents[2]
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class Loaded(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and "canonical" not in (values.get("rel") or ""):
            self.found.append(values.get("href") or "")
        self.found += [value or "" for name, value in attrs if (tag, name) in LOADS]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly; whoever asks another host meanwhile gets no answer."""
    directory = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),
            *("-f", ROOT / "deploy/site/mkdocs.yml", "-d", directory),
        ],
        env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return directory


def pages(site: Path) -> Iterator[Path]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 40
    yield from found


def test_every_page_of_the_repository_is_in_it(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        uri = page.relative_to(ROOT / "docs").with_suffix("")
        directory = uri.parent if uri.name in ("README", "index") else uri
        assert (site / directory / "index.html").is_file(), page
    assert "The runtime contract" in (site / "reference/contract/index.html").read_text()


def test_links_to_what_was_taken_in_lead_there(site: Path) -> None:
    assert 'href="../contract/"' in (site / "reference/calling/index.html").read_text()


def test_nothing_is_fetched_from_other_hosts(site: Path) -> None:
    fetched = {(page.relative_to(site), url) for page in pages(site) for url in Loaded(page).found}
    assert len(fetched) > 100
    assert [each for each in fetched if re.match(r"(\w+:)?//", each[1])] == []
    elsewhere = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+")
    for sheet in site.rglob("*.css"):
        assert elsewhere.findall(sheet.read_text()) == []
    # The theme's script would fetch the renderer of these.
    assert not any('class="mermaid"' in page.read_text() for page in pages(site))


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    """Else the site being built would prove nothing."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# x\n\n[y](nowhere.md) [z](#nowhere)\n")
    text = (ROOT / "deploy/site/mkdocs.yml").read_text()
    text = text.partition("# A folder stands")[0].replace("../../docs", str(docs))
    text = text.replace("  - hooks.py", f"  - {ROOT}/deploy/site/hooks.py")
    (tmp_path / "mkdocs.yml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", "mkdocs.yml", "-d", tmp_path / "site"],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#nowhere" in done.stderr
