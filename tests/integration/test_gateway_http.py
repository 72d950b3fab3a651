"""HTTP/JSON through Envoy: what callers write and read."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.gateway import CODE_CHUNKS, Stack, reason, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW = {"name": "hello", "runtime": "python", "code": "x"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(run_dir: Path) -> AsyncIterator[Stack]:
    async with running_stack(run_dir / "gw-http") as running:
        yield running


async def test_json_has_the_protos_names_and_default_values(stack):
    async with stack.envoy.client() as http:
        answer = await http.post("/functions", json=NEW)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["name"] == "hello"
    assert body["memory_mb"] == 0
    assert body["env"] == {}
    assert body["code_size_bytes"] == "1099511627776"  # 64-bit integers are strings
    assert "timeout" not in body  # messages that are not set are absent


async def test_the_payload_is_any_json(stack):
    payload = {"a": [1, 2.5, None, "é", {"b": True}], "snake_case": 1, "camelCase": 2}
    async with stack.envoy.client() as http:
        answer = await http.post("/invoke", json={"function_id": "f", "payload": payload})
    assert answer.json()["payload"] == payload
    assert answer.json()["status"] == "PENDING"


async def test_custom_verbs_and_deletion(stack):
    async with stack.envoy.client() as http:
        drained = await http.post("/workers/worker-1:drain", json={})
        deleted = await http.delete("/functions/hello")
    assert drained.json()["state"] == "DRAINING"
    assert drained.json()["id"] == "worker-1"
    assert (deleted.status_code, deleted.json()) == (200, {})


@pytest.mark.parametrize("mask", ["memory_mb,env", "memoryMb,env"])
async def test_an_update_mask_takes_proto_names(stack, mask):
    async with stack.envoy.client() as http:
        answer = await http.patch("/functions/hello", json={"update_mask": mask})
    assert answer.status_code == 200, answer.text
    assert stack.functions.requests[-1].function_id == "hello"
    assert list(stack.functions.requests[-1].update_mask.paths) == ["memory_mb", "env"]


async def test_query_parameters_are_fields(stack):
    async with stack.envoy.client() as http:
        answer = await http.get("/functions", params={"filter": 'name = "a+b c"', "page_size": 7})
    assert answer.json() == {"functions": [], "next_page_token": ""}
    assert stack.functions.requests[-1].filter == 'name = "a+b c"'
    assert stack.functions.requests[-1].page_size == 7


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "why"),
    [
        ("GET", "/functions/missing", None, 404, 5, "FUNCTION_NOT_FOUND"),
        ("GET", "/functions/missing/code", None, 404, 5, "FUNCTION_NOT_FOUND"),
        ("POST", "/functions", {**NEW, "name": "taken"}, 409, 6, "FUNCTION_EXISTS"),
        ("PATCH", "/functions/hello", {"etag": "old"}, 409, 10, "ETAG_MISMATCH"),
        ("GET", "/functions/away", None, 503, 14, "DEPENDENCY_UNAVAILABLE"),
        ("GET", "/functions/broken", None, 500, 13, "INTERNAL_ERROR"),
        ("POST", "/functions", {**NEW, "memory_mb": 0}, 400, 3, "INVALID_FIELD"),
        ("GET", "/invocations/nonsense", None, 400, 3, "INVALID_FIELD"),
        ("GET", "/nowhere", None, 404, 5, "UNKNOWN_PATH"),
        ("PUT", "/functions/hello", {}, 404, 5, "UNKNOWN_PATH"),
        ("POST", "/faas.v1.FunctionService/GetFunction", {}, 404, 5, "UNKNOWN_PATH"),
        ("POST", "/faas.v1.FunctionRegistryService/GetVersion", {}, 404, 5, "UNKNOWN_PATH"),
        ("POST", "/faas.v1.FunctionBuildService/TakeBuild", {}, 404, 5, "UNKNOWN_PATH"),
        ("GET", "/functions?bogus=1", None, 400, 3, "MALFORMED_REQUEST"),
        ("GET", "/functions?page_size=many", None, 400, 3, "MALFORMED_REQUEST"),
        ("POST", "/functions", {"name": 5}, 400, 3, "MALFORMED_REQUEST"),
        ("POST", "/functions", {**NEW, "timeout": "soon"}, 400, 3, "MALFORMED_REQUEST"),
        ("POST", "/functions", [], 400, 3, "MALFORMED_REQUEST"),
        ("PATCH", "/functions/a", {"function_id": "b"}, 400, 3, "MALFORMED_REQUEST"),
    ],
)
async def test_every_refusal_has_one_shape(stack, method, path, body, status, code, why):
    async with stack.envoy.client() as http:
        answer = (
            await http.request(method, path, json=body)
            if body is not None
            else (await http.request(method, path))
        )
    assert answer.status_code == status, answer.text
    assert reason(answer) == why
    assert answer.json()["code"] == code
    assert "secret" not in answer.text


async def test_wrong_fields_are_named(stack):
    async with stack.envoy.client() as http:
        answer = await http.post("/functions", json={"name": "Bad Name", "runtime": "python"})
    assert answer.status_code == 400
    bad = answer.json()["details"][1]
    assert bad["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert {v["field"] for v in bad["field_violations"]} == {"name", "source"}


@pytest.mark.parametrize(
    "text", ["", "{", '{"name":', '{"name": "a",,}', "nonsense", "\x00", '{"name": NaN}', "1 2"]
)
async def test_broken_json_is_400(stack, text):
    async with stack.envoy.client() as http:
        answer = await http.post(
            "/functions", content=text, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 400, answer.text
    # Nothing at all is the empty message, whose fields the service misses.
    assert reason(answer) == ("MALFORMED_REQUEST" if text else "INVALID_FIELD")


async def test_json_nested_without_end_is_400(stack):
    deep = '{"function_id": "f", "payload": ' + "[" * 100_000 + "]" * 100_000 + "}"
    async with stack.envoy.client() as http:
        answer = await http.post(
            "/invoke", content=deep, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 400, answer.text
    assert reason(answer) in ("MALFORMED_REQUEST", "INVALID_PAYLOAD")


async def test_unknown_fields_of_a_body_are_ignored(stack):
    async with stack.envoy.client() as http:
        answer = await http.post("/functions", json={**NEW, "from_the_future": 1})
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("content_type", ["application/zip", "text/plain", None])
async def test_an_upload_is_the_raw_file(stack, method, content_type):
    data = bytes(range(256)) * 20_000  # 5 MB: more than JSON may have, in several messages
    headers = {"content-type": content_type} if content_type else {}
    async with stack.envoy.client() as http:
        answer = await http.request(method, "/uploads", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size_bytes"] == str(len(data))
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert int(answer.json()["id"]) > 1, "it was not streamed"


async def test_an_upload_without_a_length_streams(stack):
    async def chunks():
        for _ in range(50):
            yield b"x" * 65536

    async with stack.envoy.client() as http:
        answer = await http.put("/uploads", content=chunks())
    assert answer.json()["size_bytes"] == str(50 * 65536)


async def test_a_download_is_the_raw_file(stack):
    async with stack.envoy.client() as http:
        answer = await http.get("/functions/hello/code")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.content == b"".join(CODE_CHUNKS)


async def test_a_request_has_one_id_from_log_to_service(stack):
    async with stack.envoy.client() as http:
        answer = await http.get(
            "/functions/hello?", headers={"x-request-id": "mine", "user-agent": "tester"}
        )
    request_id = answer.headers["x-request-id"]
    assert request_id != "mine"
    assert stack.functions.calls[-1].request_id == request_id
    line = stack.envoy.logged(request_id)
    assert line["path"] == "/functions/hello"
    assert line["method"] == "GET"
    assert line["rpc"] == "/faas.v1.FunctionService/GetFunction"
    assert line["status"] == 200
    assert line["grpc_status"] == "0"
    assert line["upstream"] == "functions"
    assert line["user_agent"] == "tester"
    assert line["bytes_sent"] == len(answer.content)
    assert line["duration_ms"] >= 0


async def test_the_access_log_shows_neither_bodies_nor_queries(stack):
    async with stack.envoy.client() as http:
        made = await http.post("/functions", json={**NEW, "code": "my-private-code"})
        listed = await http.get("/functions", params={"filter": 'name = "my-private-name"'})
        refused = await http.get("/functions?my-private-name=1")
    for answer in (made, listed, refused):
        line = stack.envoy.logged(answer.headers["x-request-id"])
        assert line["status"] == answer.status_code
        assert "my-private" not in json.dumps({**line, "reply": ""})


async def test_what_only_the_mesh_may_say_is_stripped(stack):
    forged = {
        "x-faas-user": "root",
        "X-FaaS-Role": "admin",
        "x-forwarded-user": "root",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-client-cert": "By=x",
        "x-envoy-original-path": "/",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-auth-request-email": "root@example.com",
        "x-authenticated-user": "root",
        "x-remote-user": "root",
        "x-real-ip": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "remote-user": "root",
        "x_faas_user": "root",
    }
    async with stack.envoy.client() as http:
        await http.get("/functions/hello", headers={**forged, "authorization": "Bearer mine"})
    metadata = dict(stack.functions.calls[-1].metadata)
    assert metadata["authorization"] == "Bearer mine"
    # Envoy's own: who called (for loopback, an address of this machine), and what path.
    assert "," not in metadata.pop("x-forwarded-for")
    assert metadata.pop("x-envoy-original-path") == "/functions/hello"
    assert metadata.pop("x-envoy-upstream-rq-timeout-ms", "") != "1"
    assert not set(metadata) & {name.lower() for name in forged}
    assert "10.0.0.1" not in json.dumps(metadata)
