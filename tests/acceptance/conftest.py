"""A whole platform for acceptance tests, as `faas up` brings it up."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.acceptance.browser import CHROMIUM, Tab, open_tab
from tests.acceptance.stack import Stack, a_directory, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One running `faas up` with the process runtime, shared by all tests that leave it running.

    Give what you create in it names of your own.
    """
    with a_directory() as directory, running(directory / "shared") as stack:
        yield stack


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for stacks of this test's own."""
    with a_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "there is no Chromium; FAAS_TEST_CHROMIUM may say where one is"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield running
        running.close()


@pytest.fixture
def tab_of(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; when the test is over nothing may have gone wrong in them."""
    with ExitStack() as opened:

        def open_one(stack: Stack, **options: object) -> Tab:
            context, tab = open_tab(browser, stack.url, **options)
            opened.callback(context.close)
            tabs.append(tab)
            return tab

        tabs: list[Tab] = []
        yield open_one
        for tab in tabs:
            tab.check()
