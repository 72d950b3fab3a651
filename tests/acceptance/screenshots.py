"""Take the pictures of `docs/images`: `make screenshots`.

Runs a platform with functions that people could have, calls them for a minute, and
looks at the screens as a person does. What is checked in is what comes out of this.
"""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.acceptance.browser import CHROMIUM, Tab, open_tab
from tests.acceptance.stack import ROOT, Stack, a_directory, running
from tests.conftest import wait_until

IMAGES = ROOT / "docs" / "images"
LIMIT_BYTES = 150_000
CALLS = 1200
SIZE = {"width": 1200, "height": 760}

GREET = '''def handler(payload, context):
    """Greets whoever is in the payload."""
    name = (payload or {}).get("name", "world")
    print(f"greeting {name}")
    return {"greeting": f"Hello, {name}!", "attempt": context.attempt}
'''
RESIZE = """import time


def handler(payload, context):
    print("reading", payload["image"])
    time.sleep(0.01 + 0.04 * (payload["width"] % 7) / 7)
    return {"image": payload["image"], "width": payload["width"], "bytes": payload["width"] * 48}
"""
CHARGE = """import random


class CardDeclined(Exception):
    \"\"\"The bank said no.\"\"\"


def charge(order, cents):
    if random.Random(order).random() < 0.2:
        raise CardDeclined(f"the card of {order} was declined")
    return {"order": order, "charged": cents}


def handler(payload, context):
    print("charging", payload["order"])
    return charge(payload["order"], payload["cents"])
"""
REPORT = "def handler(payload, context):\n    return f'report for {payload[\"team\"]}'\n"


def fill(stack: Stack) -> dict[str, str]:
    """Create the functions and call them; the ids of what is looked at."""
    stack.create("greet", GREET, description="Greets whoever is in the payload")
    stack.create("resize-image", RESIZE, description="Thumbnails", labels={"team": "media"})
    policy = {"max_attempts": 2, "initial_backoff": "0.2s", "retry_on": ["FUNCTION_ERROR"]}
    stack.create("charge-card", CHARGE, description="Payments", retry_policy=policy)
    stack.create("weekly-report", REPORT, description="Every Monday", max_age="1s")
    with stack.client() as client:
        changed = GREET.replace('f"Hello, {name}!"', 'f"Good day, {name}!"')
        client.patch("/functions/greet", json={"code": changed, "memory_mb": 192})
        for cron in ("0 7 * * MON", "0 18 * * FRI"):
            body = {"cron": cron, "time_zone": "Europe/Berlin", "payload": {"team": "search"}}
            client.post("/schedules", json={"function_id": "weekly-report", **body})
        client.post("/functions/weekly-report:pause", json={})
        for team in ("search", "media", "payments", "growth"):
            stack.invoke("weekly-report", {"team": team}, wait="0s")
    chance = random.Random(7)
    for number in range(CALLS):
        name = chance.choices(("greet", "resize-image", "charge-card"), (5, 3, 2))[0]
        payload = {
            "greet": {"name": chance.choice(("Ada", "Grace", "Edsger", "Barbara"))},
            "resize-image": {"image": f"cat-{number}.png", "width": chance.randrange(200, 900)},
            "charge-card": {"order": f"A-{number}", "cents": chance.randrange(100, 9900)},
        }[name]
        stack.invoke(name, payload, wait="0s")
        # Traffic of which the plots have something to show.
        time.sleep(chance.random() * (0.06 if number // 150 % 2 else 0.02))
    return ids(stack)


def ids(stack: Stack) -> dict[str, str]:
    """Of one invocation that failed and of one that was replayed on another version."""
    with stack.client() as client:

        def ended(query: dict[str, str]) -> list[dict]:
            return client.get("/invocations", params=query).json()["invocations"]

        dead = {"function_id": "weekly-report", "status": "DEAD_LETTERED"}
        wait_until(lambda: len(ended(dead)) == 4, "reports have expired", 120)
        open_ones = {"filter": "status = PENDING OR status = RUNNING"}
        wait_until(lambda: not ended(open_ones), "all calls have ended", 300)
        [failed, *_] = ended({"function_id": "charge-card", "status": "FAILED"})
        first = stack.invoke("greet", {"name": "Ada"}, function_version=1)
        body = {"function_version": 0, "wait": "30s"}
        replay = client.post(f"/invocations/{first['id']}:replay", json=body).json()
    return {"failed": failed["id"], "replay": replay["invocation"]["id"]}


def invoked(tab: Tab) -> None:
    """The code, with the answer of a test call beside it."""
    page = tab.settled()
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("group", name="Result")).to_be_visible()


def chosen(tab: Tab) -> None:
    """Dead letters, two of them selected."""
    boxes = tab.page.get_by_role("checkbox", name="Select inv-")
    for number in (0, 1):
        boxes.nth(number).check()


def filtered(tab: Tab) -> None:
    """The list by an expression."""
    field = tab.page.get_by_label("Filter invocations")
    field.fill('function_name = "charge-card" AND status = FAILED')
    expect(tab.page.get_by_role("row").nth(3)).to_be_visible()


def take(browser: Browser, stack: Stack, into: Path) -> None:
    """All pictures."""
    known = fill(stack)
    shots = {
        "overview": ("", None, {}),
        "overview-dark": ("", None, {"color_scheme": "dark"}),
        "function-code": ("functions/greet", invoked, {}),
        "function-activity": ("functions/charge-card/activity", None, {}),
        "function-versions": ("functions/greet/versions", None, {}),
        "function-schedules": ("functions/weekly-report/schedules", None, {}),
        "invocations": ("invocations", filtered, {}),
        "invocation-failed": (f"invocations/{known['failed']}", None, {}),
        "invocation-replayed": (f"invocations/{known['replay']}", None, {"color_scheme": "dark"}),
        "dead-letters": ("dead-letters", chosen, {}),
        "workers": ("workers", None, {}),
    }
    for name, (path, first, options) in shots.items():
        context, tab = open_tab(browser, stack.url, **{"viewport": SIZE, **options})
        tab.open(path)
        tab.settled()
        if first:
            first(tab)
        shoot(tab.page, into / f"{name}.png")
        tab.check()
        context.close()


def shoot(page: Page, file: Path) -> None:
    """One picture, which must be small enough for a repository."""
    page.evaluate("() => document.fonts.ready.then(() => true)")
    page.mouse.move(0, 0)
    page.screenshot(path=file, animations="disabled", caret="hide")
    size = file.stat().st_size
    print(f"{file.name}: {size} bytes")
    assert size < LIMIT_BYTES, file


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser whose letters are drawn the same everywhere."""
    assert CHROMIUM, "there is no Chromium; FAAS_TEST_CHROMIUM may say where one is"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--font-render-hinting=none"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=IMAGES, help="a directory")
    into = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    with a_directory() as directory, running(directory / "shown") as stack, chromium() as browser:
        take(browser, stack, into)


if __name__ == "__main__":
    main()
