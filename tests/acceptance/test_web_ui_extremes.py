"""What is large, and a server that goes away, in the web UI in a real Chromium."""

import json
import re
import signal
from collections.abc import Iterator

import psutil
import psycopg
import pytest
from playwright.sync_api import expect

from tests.acceptance.browser import Tab, browser_tests
from tests.acceptance.stack import Stack, a_directory, running

pytestmark = browser_tests

LINES = 100_000
RESULT_BYTES = 1_000_000
LARGE_BYTES = 10 * 1024 * 1024
FUNCTIONS = 10_000

PRINTS = f"""
def handler(payload, context):
    for number in range({LINES}):
        print(number)
    return "x" * 300
"""
ANSWERS = f"""
def handler(payload, context):
    lines = [f"line {{number:07}} " + "." * 80 for number in range({RESULT_BYTES // 110})]
    return lines + ["y" * {RESULT_BYTES // 12}]
"""
ANSWERS_MUCH = f"""
def handler(payload, context):
    return ["first"] + ["y" * 1000] * {LARGE_BYTES // 1000}
"""
# Rows of the database: to make so many by calls would take minutes.
COPIES = """
INSERT INTO {table} SELECT (jsonb_populate_record(row, jsonb_build_object({changes}))).*
FROM {table} row, copies WHERE {where}
"""


@pytest.fixture(scope="module")
def large() -> Iterator[Stack]:
    """A stack of these tests' own, which ten thousand functions and a dead Envoy harm."""
    room = str(8 << 20)
    settings = {"FAAS_WORKER_MAX_LOG_BYTES": room, "FAAS_INVOCATIONS_MAX_LOG_BYTES": room}
    with a_directory() as directory, running(directory / "large", settings=settings) as stack:
        yield stack


@pytest.fixture
def tab(tab_of, large) -> Tab:
    return tab_of(large)


def test_a_log_of_a_hundred_thousand_lines(tab, large):
    large.create("prints", PRINTS, timeout="120s")
    made = large.invoke("prints")
    assert made["status"] == "COMPLETED"
    page = tab.open(f"invocations/{made['id']}")
    log = page.get_by_role("group", name="Log")
    # All are there to scroll to, and no more in the page than can be seen.
    expect(log).to_have_js_property("scrollHeight", LINES * 20 + 20)
    assert log.locator(".line").count() < 200
    log.evaluate("(box) => box.scrollTo(0, box.scrollHeight)")
    expect(log.get_by_text(str(LINES - 1), exact=True)).to_be_visible()
    log.evaluate("(box) => box.scrollTo(0, 50_000 * 20)")
    expect(log.get_by_text("50000", exact=True)).to_be_visible()
    assert log.locator(".line").count() < 200
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download log").click()
    assert len(downloaded.value.path().read_bytes().splitlines()) == LINES


def test_a_result_of_a_mebibyte(tab, large):
    large.create("answers", ANSWERS)
    made = large.invoke("answers")
    assert made["status"] == "COMPLETED", made["error"]
    page = tab.open(f"invocations/{made['id']}")
    result = page.get_by_role("group", name="Result")
    expect(result.get_by_text("line 0000000")).to_be_visible()
    assert result.locator(".line").count() < 200
    result.evaluate("(box) => box.scrollTo(0, box.scrollHeight)")
    # A line as long as a book is cut, and says so.
    expect(result.get_by_text("characters more")).to_be_visible()
    assert len(result.inner_text()) < 50_000
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Download result").click()
    *lines, last = json.loads(downloaded.value.path().read_bytes())
    assert (len(lines), len(last)) == (RESULT_BYTES // 110, RESULT_BYTES // 12)
    # It stays a page that answers.
    page.get_by_role("link", name="Functions", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Functions")


def test_a_result_of_ten_mebibytes(tab, large):
    large.create("answers-much", ANSWERS_MUCH)
    made = large.invoke("answers-much")
    assert made["status"] == "COMPLETED", made["error"]
    assert int(made["large_result"]["size_bytes"]) > LARGE_BYTES
    page = tab.open(f"invocations/{made['id']}")
    # Its beginning is shown, and how much there is; all of it is a download.
    expect(page.get_by_role("group", name="Result").get_by_text("first")).to_be_visible()
    expect(page.get_by_text("The first 256")).to_contain_text("10")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Download all of it").click()
    first, *rest = json.loads(downloaded.value.path().read_bytes())
    assert (first, len(rest)) == ("first", LARGE_BYTES // 1000)


def test_ten_thousand_functions(tab, large):
    large.create("template", "def handler(payload, context): return 1\n")
    with psycopg.connect(large.database_url) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE copies AS SELECT n, uuidv7() AS id FROM "
            "generate_series(1, %s) n",
            [FUNCTIONS],
        )
        of = "(SELECT id FROM functions WHERE name = 'template')"
        named = "'id', copies.id, 'name', 'many-' || copies.n, 'created_at', clock_timestamp()"
        connection.execute(COPIES.format(table="functions", changes=named, where=f"row.id = {of}"))
        owned = "'function_id', copies.id"
        connection.execute(
            COPIES.format(table="function_versions", changes=owned, where=f"row.function_id = {of}")
        )
    page = tab.open("functions")
    table = page.get_by_role("table", name="Functions")
    expect(table.get_by_text(f"many-{FUNCTIONS}", exact=True)).to_be_visible()
    first = table.get_by_text("many-1", exact=True)
    # Scrolled to its end it loads what comes next, until there is no more.
    while not first.count():
        before = page.evaluate("() => document.documentElement.scrollHeight")
        page.evaluate("() => window.scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_function(
            "(before) => document.documentElement.scrollHeight > before"
            " || [...document.querySelectorAll('.row-link')].some(a => a.innerText === 'many-1')",
            arg=before,
        )
    assert page.get_by_role("row").count() < 100
    page.get_by_label("Filter functions").fill("many-4711")
    expect(table.get_by_text("many-4711", exact=True)).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(2)


def test_a_server_that_goes_away_is_shown_and_comes_back_by_itself(tab, large):
    large.create("stays", "def handler(payload, context): return 1\n")
    page = tab.open("functions?q=stays")
    expect(page.get_by_text("stays", exact=True)).to_be_visible()
    away = page.get_by_role("status").filter(has_text=re.compile("cannot be reached"))
    expect(away).to_have_count(0)
    large.process.send_signal(signal.SIGSTOP)  # or Envoy would be back at once
    try:
        psutil.Process(large.part("envoy").pid).kill()
        expect(away).to_be_visible()
        # What was read stays to be looked at.
        expect(page.get_by_text("stays", exact=True)).to_be_visible()
        page.get_by_role("link", name="Workers").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    finally:
        large.process.send_signal(signal.SIGCONT)
    expect(away).to_have_count(0)
    expect(page.get_by_text("in use").first).to_be_visible()
