"""What one does in the web UI to what runs, ran, waits and was given up on."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from tests.acceptance.browser import HOSTILE, Tab, browser_tests
from tests.acceptance.stack import Stack, running
from tests.conftest import wait_until
from tests.mesh import QUEUE

pytestmark = browser_tests

GREETS = """
def handler(payload, context):
    return {"greeting": "Hello, " + payload["name"], "of": "v1"}
"""
SLOW = """
import time

def handler(payload, context):
    print("begun", flush=True)
    time.sleep(100)
"""
BROKEN_GO = """package main

import (
	"context"
	"encoding/json"
)

func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	return nowhere, nil
}
"""
COMPILED_MS = 300_000  # the first time the standard library is compiled as well
FAILS = "def handler(payload, context):\n    raise ValueError(payload)\n"


@pytest.fixture
def tab(tab_of: Callable[..., Tab], stack: Stack) -> Tab:
    return tab_of(stack)


def status_of(page: Page):
    return page.locator("main h1 .status")


def given_up(stack: Stack, name: str, count: int) -> None:
    """Has so many invocations of a new function become dead letters."""
    stack.create(name, GREETS, max_age="1s")
    with stack.client() as client:
        client.post(f"/functions/{name}:pause", json={}).raise_for_status()
        for number in range(count):
            stack.invoke(name, {"name": str(number)}, wait="0s")

        def are_dead() -> bool:
            found = client.get("/dead-letters", params={"function_id": name}).json()
            return len(found["invocations"]) == count

        wait_until(are_dead, "they have expired", 120)
        answer = client.patch(f"/functions/{name}", json={"max_age": "3600s"})
        answer.raise_for_status()
        client.post(f"/functions/{name}:resume", json={}).raise_for_status()


def test_dead_letters_are_redriven_when_selected_and_by_filter(tab, stack):
    given_up(stack, "ui-given-up", 4)
    given_up(stack, "ui-given-up-too", 1)
    page = tab.open("dead-letters")
    table = page.get_by_role("table", name="Dead letters")
    expect(table.get_by_text("ui-given-up-too")).to_be_visible()
    page.get_by_label("Of the function").fill("ui-given-up")
    expect(page.get_by_role("row")).to_have_count(5)
    page.get_by_role("button", name="Worker lost").click()
    expect(page.get_by_role("heading", name="No dead letter matches")).to_be_visible()
    page.get_by_role("button", name="Expired").click()

    for number in (0, 2):
        table.get_by_role("checkbox", name="Select inv-").nth(number).check()
    page.get_by_role("button", name="Redrive 2 selected").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Redrive", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("2 taken up again.")
    expect(dialog.get_by_role("list", name="New invocations").get_by_role("link")).to_have_count(2)
    dialog.get_by_role("button", name="Close").click()

    # Of all those the two are left that were not taken up before.
    page.get_by_role("button", name="Redrive all that match").click()
    dialog.get_by_role("button", name="Redrive", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("2 taken up again.")
    dialog.get_by_role("link").first.click()
    expect(status_of(page)).to_have_text("Completed")
    expect(page.get_by_role("group", name="Result")).to_contain_text("Hello, ")
    with stack.client() as client:
        query = {"function_id": "ui-given-up", "status": "COMPLETED"}
        made = client.get("/invocations", params=query).json()["invocations"]
    assert len({each["redrive_of"] for each in made}) == len(made) <= 4


def test_the_filter_of_dead_letters_says_what_is_wrong_with_it(tab):
    page = tab.open("dead-letters")
    field = page.get_by_label("Of the function")
    field.fill("nobody-has-this-name")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("nobody-has-this-name"))


def test_stray_messages_are_shown_as_the_text_that_they_are(tab, stack):
    with Redis.from_url(stack.redis_url) as redis:
        redis.lpush(QUEUE, HOSTILE)
    page = tab.open("dead-letters")
    strays = page.get_by_role("region", name="Stray messages")
    expect(strays.get_by_text(HOSTILE).first).to_be_visible()
    assert page.evaluate("() => window.hacked") is None
    assert tab.axe() == []


def test_what_runs_is_seen_on_its_worker_and_cancelled(tab, stack):
    stack.create("ui-cancelled", SLOW, timeout="120s")
    made = stack.invoke("ui-cancelled", wait="0s")
    page = tab.open("workers")
    page.get_by_role("list", name="Running here").get_by_text("ui-cancelled").click()
    expect(page.get_by_role("group", name="Log")).to_contain_text("begun")
    expect(status_of(page)).to_have_text("Running")
    page.get_by_role("button", name="Cancel").click()
    expect(status_of(page)).to_have_text("Cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    story = page.get_by_role("region", name="What happened")
    expect(story.get_by_role("listitem").last).to_contain_text(re.compile("cancelled", re.I))
    with stack.client() as client:
        assert client.get(f"/invocations/{made['id']}").json()["status"] == "CANCELLED"


def test_a_worker_without_sandboxes_says_why(tab):
    page = tab.open("workers")
    worker = page.get_by_role("listitem").filter(has_text="worker-").first
    expect(worker.get_by_role("heading", name="Sandboxes")).to_be_visible()
    expect(worker).to_contain_text("in the process runtime each call has a process of its own")
    expect(worker.get_by_role("table")).to_have_count(0)


@pytest.fixture
def boxed(docker_engine: Path, directory: Path) -> Iterator[Stack]:
    """A stack of a test's own whose worker keeps up to twenty sandboxes, none of them prewarmed."""
    settings = {"FAAS_WORKER_PREWARMED": "0", "FAAS_WORKER_MAX_SANDBOXES": "20"}
    options = {"runtime": "docker", "settings": settings}
    with running(directory / "boxed", "--workers", "1", **options) as stack:
        yield stack


@pytest.mark.docker
def test_a_worker_shows_what_sandboxes_it_holds(tab_of, boxed):
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    tabs = [tab_of(boxed), tab_of(boxed, color_scheme="dark", **phone)]
    page = tabs[0].open("workers")
    worker = page.get_by_role("listitem").filter(has_text="worker-").first
    expect(worker).to_contain_text("None now. A call starts one")

    names = [f"ui-boxed-{number}" for number in range(9)]
    made = [boxed.create(name, GREETS, memory_mb=64 + at) for at, name in enumerate(names)]
    for name in names:
        assert boxed.invoke(name, {"name": "Ada"})["status"] == "COMPLETED"
    expect(worker.get_by_role("meter", name=re.compile("^Sandboxes of"))).to_have_attribute(
        "aria-valuenow", "9"
    )
    expect(worker).to_contain_text("9 of 20")
    # The largest come first, and the smallest when it is asked for.
    rows = worker.get_by_role("table").get_by_role("rowheader")
    expect(rows).to_have_text([f"{name}v1 · python" for name in names[:0:-1]])
    worker.get_by_role("button", name="Show all 9").press("Enter")
    expect(rows).to_have_text([f"{name}v1 · python" for name in names[::-1]])
    cells = worker.get_by_role("row").filter(has_text=names[8]).get_by_role("cell")
    expect(cells).to_have_text(["1", "0", "0", "72 MiB"])

    for tab in tabs:
        tab.open("workers")
        expect(tab.page.get_by_role("link", name=names[8])).to_be_visible()
        assert tab.axe() == []
    assert tabs[1].page.evaluate("() => document.documentElement.scrollWidth") <= 360

    # One that stays when its function goes is told by its id.
    with boxed.client() as client:
        client.delete(f"/functions/{names[8]}").raise_for_status()
    tabs[0].open("workers")
    expect(page.get_by_role("link", name=f"func-…{made[8]['id'][-8:]}")).to_be_visible()
    page.get_by_role("link", name=names[7]).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(names[7])


def test_a_replay_is_compared_with_what_it_replays(tab, stack):
    stack.create("ui-replayed", GREETS)
    made = stack.invoke("ui-replayed", {"name": "Ada"})
    with stack.client() as client:
        code = GREETS.replace('"v1"', '"v2"')
        assert client.patch("/functions/ui-replayed", json={"code": code}).status_code == 200
    page = tab.open(f"invocations/{made['id']}")

    def replay(version: str) -> None:
        page.get_by_role("button", name="Replay …").click()
        page.get_by_role("radio", name=version).check()
        page.get_by_role("dialog").get_by_role("button", name="Replay", exact=True).click()

    replay("The latest version")
    compared = page.get_by_role("region", name="Compared with")
    differences = compared.get_by_label("Differences")
    expect(differences.locator("dt")).to_have_text(["/result/of"])
    expect(differences.locator("del")).to_have_text('"v1"')
    expect(differences.locator("ins")).to_have_text('"v2"')
    compared.get_by_role("link").click()
    expect(page).to_have_url(re.compile(made["id"]))

    replay("The version that it ran on, v1")
    expect(compared).to_contain_text("Both ended the same way")

    page.get_by_role("button", name="Replay …").click()
    page.get_by_role("radio", name="Another version").check()
    page.get_by_label("Number of the version").fill("77")
    page.get_by_role("dialog").get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("77")
    assert tab.axe() == []


def test_what_failed_is_taken_up_again_and_every_start_is_told(tab, stack):
    policy = {"max_attempts": 2, "initial_backoff": "0.1s", "retry_on": ["FUNCTION_ERROR"]}
    stack.create("ui-tried-again", FAILS, retry_policy=policy)
    made = stack.invoke("ui-tried-again", HOSTILE)
    assert made["status"] == "FAILED"
    page = tab.open(f"invocations/{made['id']}")
    attempts = page.get_by_role("group", name="Attempts")
    expect(attempts.get_by_role("rowheader")).to_have_text(["#1", "#2"])
    story = page.get_by_role("region", name="What happened")
    expect(story.get_by_role("listitem").nth(1)).to_be_visible()

    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_role("region", name="Compared with")).to_contain_text("takes up again")
    expect(status_of(page)).to_have_text("Failed")
    expect(page.get_by_text("Both ended the same way")).to_be_visible()
    assert page.evaluate("() => window.hacked") is None


def test_texts_and_bytes_are_shown_as_what_they_are(tab, stack):
    stack.create("ui-bytes", "def handler(payload, context):\n    return payload\n")
    kinds = {"text/plain": HOSTILE.encode(), "application/octet-stream": bytes(range(256))}
    with stack.client() as client:
        ids = {}
        for kind, sent in kinds.items():
            answer = client.post(
                "/functions/ui-bytes:call", content=sent, headers={"content-type": kind}
            )
            assert answer.status_code == 200, answer.text
            ids[kind] = answer.headers["x-faas-invocation-id"]
    page = tab.open(f"invocations/{ids['text/plain']}")
    expect(page.get_by_role("group", name="Payload")).to_contain_text(HOSTILE)
    assert page.evaluate("() => window.hacked") is None

    page = tab.open(f"invocations/{ids['application/octet-stream']}")
    payload = page.get_by_role("region", name="Payload")
    expect(payload).to_contain_text("application/octet-stream")
    with page.expect_download() as downloaded:
        payload.get_by_role("link", name="Download payload").click()
    assert downloaded.value.path().read_bytes() == bytes(range(256))


def test_schedules_are_made_paused_and_deleted(tab, stack):
    made = stack.create("ui-scheduled", GREETS)
    page = tab.open("functions/ui-scheduled/schedules")
    page.get_by_role("button", name="New schedule").click()
    cron = page.get_by_label("Cron line")
    cron.fill("every now and then")
    page.get_by_label("Time zone").fill("Europe/Atlantis")
    page.get_by_role("button", name="Create schedule").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("[aria-invalid]").first).to_be_visible()
    assert tab.axe() == []
    cron.fill("0 9 * * MON-FRI")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    tab.write("Payload of the schedule", json.dumps({"name": HOSTILE}))
    page.get_by_label("If the one before still runs").select_option("SKIP")
    page.get_by_role("button", name="Create schedule").click()

    one = page.get_by_role("list", name="Schedules").get_by_role("listitem")
    expect(one).to_contain_text("0 9 * * MON-FRI")
    expect(one).to_contain_text("Europe/Berlin")
    expect(one.get_by_label("Payload")).to_contain_text(json.dumps(HOSTILE, ensure_ascii=False))
    expect(one).to_contain_text("next in")
    one.get_by_role("button", name="Pause").click()
    expect(one).to_contain_text("paused")
    with stack.client() as client:
        query = {"function_id": made["id"]}
        [kept] = client.get("/schedules", params=query).json()["schedules"]
        assert (kept["paused"], kept["overlap"]) == (True, "SKIP")
        assert kept["payload"] == {"name": HOSTILE}
        one.get_by_role("button", name="Resume").click()
        expect(one).to_contain_text("next in")
        one.get_by_role("button", name="Delete …").click()
        page.get_by_role("button", name="Delete schedule").click()
        expect(page.get_by_role("heading", name="No schedules")).to_be_visible()
        assert client.get("/schedules", params=query).json()["schedules"] == []


def test_metrics_count_what_ended(tab, stack):
    stack.create("ui-metrics", "def handler(payload, context):\n    return 1 / payload\n")
    for payload in (1, 2, 0, 4):
        stack.invoke("ui-metrics", payload)
    page = tab.open("functions/ui-metrics/activity")
    metrics = page.get_by_role("region", name="Metrics")
    expect(metrics.locator(".figures > div").first).to_have_text("Ended4")
    expect(metrics.locator(".figures > div").nth(1)).to_have_text("Errors25 %")
    ends = metrics.get_by_role("list", name="How they ended").get_by_role("listitem")
    expect(ends.filter(has_text="Completed")).to_contain_text("3")
    expect(ends.filter(has_text="Failed")).to_contain_text("1")
    latency = metrics.get_by_role("group", name="Latency by phase")
    expect(latency.get_by_role("rowheader").filter(has_text="Run")).to_be_visible()
    metrics.get_by_role("radio", name="Week").check()
    expect(metrics.locator(".figures > div").first).to_have_text("Ended4")


def test_a_filter_is_read_by_the_server_and_refused_at_its_field(tab, stack):
    stack.create("ui-filter-one", GREETS)
    stack.create("ui-filter-two", FAILS)
    stack.invoke("ui-filter-one", {"name": "Ada"}, labels={"team": "search"})
    stack.invoke("ui-filter-two", 1, labels={"team": "search"})
    page = tab.open("invocations")
    table = page.get_by_role("table", name="Invocations")
    field = page.get_by_label("Filter invocations")
    field.fill('labels.team = "search" AND status =')
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("filter"))
    expect(page.get_by_role("heading", name="A filter compares fields")).to_be_visible()
    assert tab.axe() == []
    field.press_sequentially(' FAILED AND function_name : "ui-filter"')
    expect(table.get_by_text("ui-filter-two")).to_be_visible()
    expect(table.get_by_text("ui-filter-one")).to_have_count(0)
    expect(field).not_to_have_attribute("aria-invalid", "true")
    # What matches later comes by itself.
    stack.invoke("ui-filter-two", 2, labels={"team": "search"})
    expect(page.get_by_role("row")).to_have_count(3)
    page.reload()
    expect(page.get_by_role("row")).to_have_count(3)
    field.fill('function_name = "nobody"')
    expect(page.get_by_role("heading", name="No invocation matches")).to_be_visible()


def test_what_does_not_compile_is_shown_with_the_compilers_words(tab, stack):
    stack.create("ui-broken-go", BROKEN_GO, runtime="go")
    page = tab.open("functions/ui-broken-go")
    said = page.get_by_label("What the compiler says")
    expect(said).to_contain_text("undefined: nowhere", timeout=COMPILED_MS)
    expect(page.get_by_role("alert")).to_contain_text("v1 does not compile")
    assert tab.axe() == []
    page.get_by_role("link", name="Functions", exact=True).first.click()
    row = page.get_by_role("row").filter(has_text="ui-broken-go")
    expect(row).to_contain_text("Does not compile")
