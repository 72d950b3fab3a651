"""The web UI in a real Chromium, watched for what must never happen in it."""

import os
import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

# A slow machine that does other things as well.
PATIENCE_MS = 60_000

CHROMIUM = next(
    filter(
        None,
        (
            os.environ.get("FAAS_TEST_CHROMIUM"),
            *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
        ),
    ),
    None,
)

_AXE = (Path(find_spec("axe_playwright_python").origin).parent / "axe.min.js").read_text()

# What a page must show as the text that it is.
HOSTILE = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    "</pre></textarea>&lt;b&gt; {{7*7}} ${7*7} javascript:window.hacked=1 \u202egnp.\u202c"
)

# The mark of every module that needs it.
browser_tests = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "FAAS_TEST_REQUIRE_ALL" not in os.environ,
        reason="there is no Chromium; FAAS_TEST_CHROMIUM may say where one is",
    ),
]

expect.set_options(timeout=PATIENCE_MS)

# Told by the page itself, whatever the console shows of it.
_WATCH_POLICY = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


@dataclass
class Tab:
    """One page of the UI, and what went wrong in it."""

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Begin to note what must not happen."""
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.set_default_navigation_timeout(PATIENCE_MS)
        self.page.add_init_script(_WATCH_POLICY)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        # That the server is away shows in the network, and is no mistake of the page's.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def open(self, path: str = "") -> Page:
        """Show a screen, as its address in a new tab does."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/#/{path}")
        return self.page

    def settled(self) -> Page:
        """The page once nothing of it is awaited: neither rows nor the editor."""
        self.page.locator("main h1").first.wait_for()
        self.page.wait_for_function("() => !document.querySelector('.loading, main .editor-plain')")
        return self.page

    def write(self, label: str, text: str) -> None:
        """Write into a code editor, over what is there, as a person does."""
        self.page.get_by_label(label).click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert self.wrong == []
        assert self.page.evaluate("() => window.__violations ?? []") == []

    def axe(self) -> list[str]:
        """What the accessibility checker finds."""
        # By the debugger, which a page's policy does not bind, and no script element.
        session = self.page.context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": _AXE})
        session.detach()
        found = self.page.evaluate(
            "() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa',"
            " 'wcag22aa', 'best-practice']})"
        )
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]


def open_tab(browser: Browser, url: str, **options: object) -> tuple[BrowserContext, Tab]:
    """A tab of a context of its own."""
    values = {"viewport": {"width": 1280, "height": 820}, "reduced_motion": "reduce", **options}
    context = browser.new_context(**values)
    tab = Tab(context.new_page(), url)
    tab.watch()
    return context, tab
