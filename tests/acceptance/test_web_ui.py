"""The web UI, in a real Chromium, on a running `faas up`, through Envoy."""

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.acceptance.browser import HOSTILE, Tab, browser_tests
from tests.acceptance.stack import Stack

pytestmark = browser_tests

HELLO = """
def handler(payload, context):
    print("greeting", payload["name"])
    return {"greeting": "Hello, " + payload["name"] + "!"}
"""
DECLINES = """
class CardDeclined(Exception):
    pass


def charge(order):
    raise CardDeclined(f"card of {order} was declined")


def handler(payload, context):
    return charge(payload["order"])
"""
SLOW = """
import time

def handler(payload, context):
    for step in range(600):
        print("step", step, flush=True)
        time.sleep(0.2)
"""


@pytest.fixture
def tab(tab_of: Callable[..., Tab], stack: Stack) -> Tab:
    return tab_of(stack)


@pytest.fixture(scope="module")
def screens(stack: Stack) -> dict[str, str]:
    """Every screen with something on it, by name."""
    stack.create("ui-hello", HELLO, description="Greets", labels={"team": "search"})
    with stack.client() as client:
        changed = HELLO.replace("Hello", "Good day")
        answer = client.patch(
            "/functions/ui-hello", json={"code": changed, "memory_mb": 192, "env": {"A": "1"}}
        )
        assert answer.status_code == 200, answer.text
    stack.create("ui-declines", DECLINES)
    done = [stack.invoke("ui-hello", {"name": name}) for name in ("Ada", "Grace", "Edsger")]
    failed = stack.invoke("ui-declines", {"order": "A-17"})
    assert {each["status"] for each in done} == {"COMPLETED"}
    assert failed["status"] == "FAILED"
    return {
        "overview": "",
        "functions": "functions",
        "nothing found": "functions?q=surely-not-there",
        "code": "functions/ui-hello",
        "activity": "functions/ui-hello/activity",
        "versions": "functions/ui-hello/versions",
        "schedules": "functions/ui-hello/schedules",
        "settings": "functions/ui-hello/settings",
        "new": "new",
        "invocations": "invocations",
        "completed": f"invocations/{done[0]['id']}",
        "failed": f"invocations/{failed['id']}",
        "dead letters": "dead-letters",
        "workers": "workers",
        "no such page": "elsewhere",
    }


SCREENS = [
    "overview",
    "functions",
    "nothing found",
    "code",
    "activity",
    "versions",
    "schedules",
    "settings",
    "new",
    "invocations",
    "completed",
    "failed",
    "dead letters",
    "workers",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_is_accessible_and_keeps_to_the_policy(tab_of, stack, screens, scheme):
    tab = tab_of(stack, color_scheme=scheme)
    found = {}
    for name in SCREENS:
        tab.open(screens[name])
        tab.settled()
        if wrong := tab.axe():
            found[name] = wrong
        tab.check()
    assert found == {}


def test_every_screen_fits_a_telephone(tab_of, stack, screens):
    tab = tab_of(stack, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    for name in SCREENS:
        tab.open(screens[name])
        tab.settled()
        wide = tab.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 360, name
    assert tab.axe() == []


def test_a_function_is_made_called_and_changed(tab, stack):
    page = tab.open("new")
    tab.settled()
    page.get_by_label("Name", exact=True).fill("ui-made-here")
    tab.write("Code of main.py", HELLO)
    page.get_by_role("button", name="Create function").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ui-made-here")
    tab.settled()

    tab.write("Payload", '{"name": "Ada"}')
    page.get_by_role("button", name="Invoke").click()
    test = page.get_by_role("region", name="Test")
    expect(test.locator(".status")).to_have_text("Completed")
    expect(test.get_by_role("group", name="Result")).to_contain_text('"greeting": "Hello, Ada!"')
    expect(test.get_by_role("group", name="Log")).to_contain_text("greeting Ada")

    tab.write("Code of ui-made-here", HELLO.replace("Hello", "Good day"))
    page.get_by_role("button", name="Deploy v2").click()
    expect(page.get_by_role("button", name="v2 deployed")).to_be_visible()
    page.get_by_role("button", name="Invoke").click()
    expect(test.get_by_role("group", name="Result")).to_contain_text("Good day, Ada!")

    page.get_by_role("link", name="Versions").click()
    difference = page.get_by_role("region", name="Difference")
    expect(difference.locator(".cm-deletedChunk")).to_contain_text("Hello, ")
    expect(difference.locator(".cm-changedLine")).to_contain_text("Good day, ")

    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete function").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Functions")
    with stack.client() as client:
        assert client.get("/functions/ui-made-here").status_code == 404


def test_what_is_wrong_with_a_form_is_said_at_its_field(tab, stack):
    page = tab.open("new")
    page.get_by_label("Name", exact=True).fill("Not A Name")
    page.get_by_label("Memory, MiB").fill("1")
    page.get_by_role("button", name="Add variable").click()
    page.get_by_label("Name of variable 1").fill("LD_PRELOAD")
    page.get_by_role("button", name="Create function").click()
    name = page.get_by_label("Name", exact=True)
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_have_accessible_description(re.compile("must be a lower-case letter"))
    expect(page.get_by_label("Memory, MiB")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert")).to_contain_text("env")
    assert tab.axe() == []


def test_settings_change_what_was_changed_alone(tab, stack):
    stack.create("ui-settings", HELLO, env={"KEEP": "1"}, labels={"gone": "soon"})
    page = tab.open("functions/ui-settings/settings")
    page.get_by_label("Description").fill("Changed")
    page.get_by_label("Memory, MiB").fill("256")
    page.get_by_role("button", name="Remove label gone").click()
    page.get_by_label("Starts in all").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved as v2.")).to_be_visible()
    with stack.client() as client:
        made = client.get("/functions/ui-settings").json()
    assert made["description"] == "Changed"
    assert made["memory_mb"] == 256
    assert made["env"] == {"KEEP": "1"}
    assert made["labels"] == {}
    assert made["retry_policy"]["max_attempts"] == 3


def test_a_change_over_somebody_elses_is_refused(tab, stack):
    stack.create("ui-raced", HELLO)
    page = tab.open("functions/ui-raced")
    tab.settled()
    tab.write("Code of ui-raced", "# mine\n")
    with stack.client() as client:
        answer = client.patch("/functions/ui-raced", json={"code": "# theirs\n"})
        assert answer.status_code == 200
    page.get_by_role("button", name=re.compile("Deploy v")).click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else was faster")
    with stack.client() as client:
        assert client.get("/functions/ui-raced/code").text == "# theirs\n"


def test_a_failed_function_shows_its_own_stack(tab, screens):
    page = tab.open(screens["failed"])
    expect(page.locator("main .status")).to_have_text("Failed")
    expect(page.get_by_role("group", name="Error")).to_contain_text("card of A-17 was declined")
    stack = page.get_by_label("Stack")
    expect(stack).to_contain_text("in charge")
    expect(stack).not_to_contain_text("shim")


def test_a_running_function_is_watched(tab, stack):
    stack.create("ui-slow", SLOW, timeout="120s")
    made = stack.invoke("ui-slow", wait="0s")
    page = tab.open(f"invocations/{made['id']}")
    log = page.get_by_role("group", name="Log")
    expect(log).to_contain_text("step 0")
    expect(page.locator("main .status")).to_have_text("Running")
    # What comes later comes by itself, and the log stays at its end.
    expect(log).to_contain_text("step 60")


def test_invocations_appear_by_themselves_and_filter_as_one_types(tab, stack):
    stack.create("ui-list-one", HELLO)
    stack.create("ui-list-two", DECLINES)
    page = tab.open("invocations")
    table = page.get_by_role("table", name="Invocations")
    stack.invoke("ui-list-one", {"name": "Ada"})
    stack.invoke("ui-list-two", {"order": "B-2"})
    expect(table.get_by_text("ui-list-one")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("b-2 declined")
    expect(table.get_by_text("ui-list-two")).to_be_visible()
    expect(table.get_by_text("ui-list-one")).to_have_count(0)
    page.get_by_label("Filter invocations").fill("")
    page.get_by_role("button", name="Failed", exact=True).click()
    expect(table.get_by_text("ui-list-two")).to_be_visible()
    expect(table.get_by_text("ui-list-one")).to_have_count(0)
    assert "status=FAILED" in page.url


def test_a_worker_is_drained_and_resumed(tab, stack):
    page = tab.open("workers")
    worker = page.get_by_role("listitem").filter(has_text="worker-").first
    worker.get_by_role("button", name="Drain").click()
    try:
        expect(worker.locator(".status")).to_have_text(re.compile("Draining|Drained"))
    finally:
        worker.get_by_role("button", name="Resume").click()
    expect(worker.locator(".status")).to_have_text("Ready")


def test_hostile_texts_are_texts(tab, stack):
    raises = "def handler(payload, context):\n    print(payload)\n    raise ValueError(payload)\n"
    stack.create("ui-hostile", raises, description=HOSTILE, labels={"a": HOSTILE[:200]})
    stack.create(
        "ui-hostile-echo",
        "def handler(payload, context):\n    print(payload)\n    return {payload: [payload]}\n",
        env={"EVIL": HOSTILE},
    )
    failed = stack.invoke("ui-hostile", HOSTILE, labels={"b": HOSTILE[:200]})
    echoed = stack.invoke("ui-hostile-echo", HOSTILE)
    assert (failed["status"], echoed["status"]) == ("FAILED", "COMPLETED")
    shown = {
        "": HOSTILE[:20],
        "functions": HOSTILE[:20],
        "functions/ui-hostile": HOSTILE,
        "functions/ui-hostile/settings": None,
        "functions/ui-hostile-echo/versions": None,
        "functions/ui-hostile/activity": HOSTILE[:20],
        "invocations": HOSTILE[:20],
        f"invocations/{failed['id']}": HOSTILE,
        f"invocations/{echoed['id']}": json.dumps(HOSTILE, ensure_ascii=False),
        "functions/%3Cimg%20src=x%20onerror=hacked=1%3E": "There is no function",
        "invocations/javascript:hacked=1": "invocation_id",
        "%E0%A4%A/%00": "There is no such page",
        f"functions?q={HOSTILE}": None,
    }
    for path, text in shown.items():
        page = tab.open(path)
        if text:
            expect(page.get_by_text(text).first).to_be_visible()
        else:
            tab.settled()
        assert page.evaluate("() => window.hacked") is None, path
        assert page.locator("main img, main script, a[href^='javascript:']").count() == 0
        tab.check()


def test_the_keyboard_reaches_everything(tab, stack, screens):
    page = tab.open()
    tab.settled()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Filter a list")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("f")
    expect(page.get_by_role("heading", level=1)).to_have_text("Functions")
    page.keyboard.press("/")
    page.keyboard.type("ui-hello")
    row = page.get_by_role("link", name="ui-hello", exact=True)
    expect(page.get_by_role("row")).to_have_count(2)
    page.keyboard.press("Tab")
    expect(row).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("ui-hello")
    tab.settled()
    # Nor does the editor keep it: Escape, then Tab, leaves.
    code = page.get_by_label("Code of ui-hello")
    code.focus()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    expect(code).not_to_be_focused()
    tab.write("Payload", '{"name": "Ada"}')
    page.keyboard.press("Control+Enter")
    test = page.get_by_role("region", name="Test")
    expect(test.get_by_role("group", name="Result")).to_contain_text("Ada")


def test_a_chosen_theme_stays(tab):
    page = tab.open()
    page.get_by_role("radio", name="Dark").check()
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("radio", name="Light").check()
    assert page.evaluate(ground) != dark
    page.get_by_role("radio", name="Dark").check()
    page.reload()
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
    assert page.evaluate(ground) == dark


def test_nothing_is_asked_while_nobody_looks(tab):
    page = tab.open("invocations")
    tab.settled()
    # A headless browser hides no tab: the page is told so.
    page.evaluate(
        """() => {
          window.hiddenNow = true;
          Object.defineProperty(document, "hidden", {get: () => window.hiddenNow});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(5_000)  # two intervals and more in which it would have asked
    assert asked == []
    with page.expect_request("**/invocations?**"):
        page.evaluate(
            """() => {
              window.hiddenNow = false;
              document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
