"""The web UI's files as they are checked in."""

import gzip
import re

from services.gateway import assets, static_files

INDEX = (assets.STATIC / "index.html").read_text()
LINKED = re.findall(r'(?:src|href)="([^"]+)"', INDEX)
FIRST_SCREEN_LIMIT_BYTES = 300_000


def test_the_index_has_nothing_inline_and_links_to_its_own_files_alone():
    assert not re.search(r"<style|style=|<script(?![^>]*\ssrc=)|\son\w+=", INDEX)
    assert LINKED
    for address in LINKED:
        assert (assets.STATIC / address.removeprefix("/ui/")).is_file(), address


def test_the_first_screen_is_small():
    scripts = [assets.STATIC / address.removeprefix("/ui/") for address in LINKED]
    sheet = next(path for path in scripts if path.suffix == ".css")
    fonts = re.findall(r"url\(/ui/([^)]+)\)", sheet.read_text())
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in scripts}
    sizes |= {name: (assets.STATIC / name).stat().st_size for name in fonts}
    assert sum(sizes.values()) <= FIRST_SCREEN_LIMIT_BYTES, sizes


def test_what_is_text_travels_compressed_and_fonts_as_they_are():
    files = static_files.load(assets.STATIC)
    assert files["/"].body.decode() == INDEX
    for path, file in files.items():
        assert file.content_type, path
        assert (file.compressed is None) == path.endswith(".woff2")
        assert ("immutable" in file.cache_control) == path.startswith("/ui/assets/")


def test_licences_of_what_is_bundled_travel_with_it():
    licences = (assets.STATIC / "licenses.md").read_text()
    for name in ("react", "@codemirror/view"):
        assert f"## {name} - " in licences
    assert "SIL OPEN FONT LICENSE" in (assets.STATIC / "font-licenses.txt").read_text()


def test_the_lock_names_no_registry():
    lock = assets.STATIC.with_name("ui") / "package-lock.json"
    assert "://" not in re.sub(r'"url": "[^"]*"', "", lock.read_text())  # of funding
