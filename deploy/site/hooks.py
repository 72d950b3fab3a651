"""What the site's pages need that files of a repository do not.

Some pages stand where they belong in the repository, outside `docs`. They become
pages of the site too, and links to them lead there. A folder in the navigation
stands for all of its pages, so that a new one cannot be forgotten.
"""

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ADOPTED = {"runtimes/CONTRACT.md": "reference/contract.md"}
"""Files of the repository, and what they are called in the site."""

_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the pages of folders."""
    config.nav = [_filled(item, Path(config.docs_dir)) for item in config.nav or ()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what stands elsewhere."""
    for source, uri in ADOPTED.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to what was taken in, and links within it, to where that is in the site."""
    uri = page.file.src_uri
    source = {new: old for old, new in ADOPTED.items()}.get(uri, f"docs/{uri}")
    return _LINK.sub(lambda m: m[1] + _link(m[2], source, uri) + m[3], markdown)


def _filled(item: Any, docs: Path) -> Any:
    if isinstance(item, dict):
        ((title, inside),) = item.items()
        if isinstance(inside, str) and inside.endswith("/"):
            # The README is the folder's index, and comes first.
            pages = sorted((docs / inside).glob("*.md"), key=lambda p: (p.name != "README.md", p))
            return {title: [page.relative_to(docs).as_posix() for page in pages]}
    return item


def _link(target: str, source: str, uri: str) -> str:
    if "://" in target or target.startswith("mailto:"):
        return target
    meant = os.path.normpath(PurePosixPath(source).parent / target)
    found = ADOPTED.get(meant, meant.removeprefix("docs/"))
    return os.path.relpath(found, PurePosixPath(uri).parent)
