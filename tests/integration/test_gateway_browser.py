"""A web page elsewhere is no way in, unless its origin is allowed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.gateway import Stack, reason, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = "https://app.example.com"
NEW = {"name": "hello", "runtime": "python", "code": "x"}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed(run_dir: Path) -> AsyncIterator[Stack]:
    """As it is by default."""
    async with running_stack(run_dir / "gw-closed") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(run_dir: Path) -> AsyncIterator[Stack]:
    """With an origin and hosts allowed."""
    settings = {
        "allowed_origins": APP,
        "allowed_hosts": "faas.example.com, *.apps.example.com",
    }
    async with running_stack(run_dir / "gw-opened", **settings) as running:
        yield running


@pytest.mark.parametrize("origin", [APP, "null", "http://localhost", "http://127.0.0.1:1"])
async def test_no_other_origin_is_allowed_by_default(closed, origin):
    before = len(closed.functions.requests)
    async with closed.envoy.client() as http:
        asked = await http.options("/functions", headers={"origin": origin, **PREFLIGHT})
        made = await http.post("/functions", json=NEW, headers={"origin": origin})
        read = await http.get("/functions", headers={"origin": origin})
    for answer in (asked, made, read):
        assert answer.status_code == 403, answer.text
        assert reason(answer) == "ORIGIN_NOT_ALLOWED"
        assert "access-control-allow-origin" not in answer.headers
    assert len(closed.functions.requests) == before


async def test_grpc_web_of_another_origin_is_refused_too(closed):
    headers = {"origin": APP, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    before = len(closed.functions.calls)
    async with closed.envoy.client() as http:
        answer = await http.post(
            "/faas.v1.FunctionService/GetFunction", content=b"\0" * 5, headers=headers
        )
    assert answer.headers["grpc-status"] == "7"
    assert len(closed.functions.calls) == before


async def test_the_gateway_s_own_pages_may_call(closed):
    port = closed.envoy.port
    async with closed.envoy.client() as http:
        for origin in (f"http://localhost:{port}", f"http://127.0.0.1:{port}"):
            answer = await http.post("/functions", json=NEW, headers={"origin": origin})
            assert answer.status_code == 200, answer.text
        # A proxy with TLS in front changes the origin; the browser says that it is the same.
        headers = {"origin": "https://elsewhere.example.com", "sec-fetch-site": "same-origin"}
        assert (await http.post("/functions", json=NEW, headers=headers)).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_browser_that_says_another_site_is_refused(closed, site):
    headers = {"origin": APP, "sec-fetch-site": site}
    async with closed.envoy.client() as http:
        answer = await http.get("/functions", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/plain; application/json",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_a_form_can_send_is_no_json(closed, method, content_type):
    before = len(closed.functions.requests)
    path = "/functions" if method == "POST" else "/functions/f"
    headers = {"content-type": content_type} if content_type else {}
    async with closed.envoy.client() as http:
        answer = await http.request(
            method,
            path,
            content=b'{"name": "a", "runtime": "python", "code": "x"}',
            headers=headers,
        )
    assert answer.status_code == 415, answer.text
    assert reason(answer) == "UNSUPPORTED_CONTENT_TYPE"
    assert len(closed.functions.requests) == before


async def test_json_may_say_its_charset(closed):
    async with closed.envoy.client() as http:
        answer = await http.post(
            "/functions",
            content=b'{"name": "a", "runtime": "python", "code": "x"}',
            headers={"content-type": "Application/JSON; charset=utf-8"},
        )
    assert answer.status_code == 200, answer.text


async def test_an_allowed_origin_may_call(opened):
    async with opened.envoy.client() as http:
        asked = await http.options("/functions", headers={"origin": APP, **PREFLIGHT})
        made = await http.post("/functions", json=NEW, headers={"origin": APP})
        missing = await http.get("/functions/missing", headers={"origin": APP})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "content-type" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    for answer, status in ((made, 200), (missing, 404)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", f"{APP}.evil.com", "http://app.example.com"]
)
async def test_other_origins_stay_refused(opened, origin):
    async with opened.envoy.client() as http:
        asked = await http.options("/functions", headers={"origin": origin, **PREFLIGHT})
        read = await http.get("/functions", headers={"origin": origin})
    for answer in (asked, read):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example.com", "faas.example.com", "127.0.0.1.evil.com", "10.0.0.1", "[::2]"]
)
async def test_a_host_that_is_not_ours_is_421(closed, host):
    """A name that an attacker points at 127.0.0.1 gets nothing."""
    async with closed.envoy.client() as http:
        for path in ("/functions", "/health", "/openapi.json"):
            answer = await http.get(path, headers={"host": f"{host}:{closed.envoy.port}"})
            assert answer.status_code == 421, answer.text
            assert reason(answer) == "HOST_NOT_ALLOWED"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8080"])
async def test_the_hosts_of_this_machine_are_served(closed, host):
    async with closed.envoy.client() as http:
        answer = await http.get("/functions/f", headers={"host": host})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("faas.example.com", 200),
        ("faas.example.com:8443", 200),
        ("one.apps.example.com", 200),
        ("apps.example.com", 421),
        ("example.com", 421),
        ("faas.example.com.evil.com", 421),
    ],
)
async def test_allowed_hosts_are_served(opened, host, status):
    async with opened.envoy.client() as http:
        answer = await http.get("/functions/f", headers={"host": host})
    assert answer.status_code == status, answer.text
