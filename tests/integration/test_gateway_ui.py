"""The web UI's files through Envoy, and what is sent with them."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.gateway import assets
from tests.integration.gateway import Stack, reason, running_gateway, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

INDEX = (assets.STATIC / "index.html").read_text()
LINKED = re.findall(r'(?:src|href)="([^"]+)"', INDEX)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(run_dir: Path) -> AsyncIterator[Stack]:
    directory = run_dir / "gw-ui"
    urls = {"database_url": "postgresql:///none?host=/none", "redis_url": "unix:///none"}
    async with running_stack(directory) as running, running_gateway(directory, **urls):
        yield running


async def test_the_page_is_at_the_root_under_a_strict_policy(stack):
    async with stack.envoy.client() as http:
        answer = await http.get("/")
    assert answer.status_code == 200
    assert answer.text == INDEX
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    whole = answer.headers["content-security-policy"]
    policy = dict(each.split(" ", 1) for each in whole.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in whole


async def test_files_named_by_their_hash_are_kept_for_good(stack):
    async with stack.envoy.client() as http:
        for address in LINKED:
            answer = await http.get(address, headers={"accept-encoding": "gzip"})
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.content == (assets.STATIC / address.removeprefix("/ui/")).read_bytes()
            plain = await http.get(address, headers={"accept-encoding": "identity"})
            assert "content-encoding" not in plain.headers
            assert plain.content == answer.content


async def test_what_has_not_changed_is_not_sent_again(stack):
    async with stack.envoy.client() as http:
        first = await http.get("/")
        again = await http.get("/", headers={"if-none-match": first.headers["etag"]})
        other = await http.get("/", headers={"if-none-match": '"other"'})
    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path", ["/ui", "/ui/", "/ui/nothing.js", "/ui/index.html", "/ui/../../settings.py"]
)
async def test_there_is_nothing_else(stack, path):
    async with stack.envoy.client() as http:
        answer = await http.get(path)
    assert answer.status_code == 404
    assert reason(answer) == "UNKNOWN_PATH"


async def test_what_functions_and_callers_wrote_is_no_page_of_this_origin(stack):
    async with stack.envoy.client() as http:
        code = await http.get("/functions/hello/code")
        refused = await http.get("/nowhere")
    for answer in (code, refused):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
