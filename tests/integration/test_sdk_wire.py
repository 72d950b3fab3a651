"""What the client does on the wire: tries again, identifies itself, encrypts, gives up."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

import faas
from faas import contexts
from faas.contexts import Contexts, Server
from faas.v1 import function_pb2, function_service_pb2, invocation_pb2, invocation_service_pb2

CODES = {
    grpc.StatusCode.UNAVAILABLE: code_pb2.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED: code_pb2.UNAUTHENTICATED,
    grpc.StatusCode.INTERNAL: code_pb2.INTERNAL,
}
ANSWERS = {
    "GetFunction": function_pb2.Function(name="x"),
    "CreateFunction": function_pb2.Function(name="x"),
    "UpdateFunction": function_pb2.Function(name="x"),
    "DeleteFunction": Empty(),
    "Invoke": invocation_pb2.Invocation(id="inv-1", status=invocation_pb2.Invocation.COMPLETED),
}
REQUESTS = {
    "GetFunction": function_service_pb2.GetFunctionRequest,
    "CreateFunction": function_service_pb2.CreateFunctionRequest,
    "UpdateFunction": function_service_pb2.UpdateFunctionRequest,
    "DeleteFunction": function_service_pb2.DeleteFunctionRequest,
    "Invoke": invocation_service_pb2.InvokeRequest,
}


def failure(code: grpc.StatusCode, *details: object) -> grpc.Status:
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return rpc_status.to_status(status_pb2.Status(code=CODES[code], message="no", details=packed))


class Peer(grpc.GenericRpcHandler):
    """A gRPC server that fails as it is told, first, and remembers what it was sent."""

    def __init__(self) -> None:
        self.failures: list[grpc.Status] = []
        self.requests: list = []
        self.metadata: list[dict[str, str]] = []

    def service(self, details: grpc.HandlerCallDetails):
        method = details.method.rpartition("/")[2]
        if method not in ANSWERS:
            return None

        async def answer(request, context):
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            if self.failures:
                failed = self.failures.pop(0)
                await context.abort_with_status(failed)
            return ANSWERS[method]

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=REQUESTS[method].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([peer])
    peer.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield peer
    await server.stop(0)


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[faas.AsyncClient]:
    async with faas.AsyncClient(f"http://127.0.0.1:{peer.port}", token="s3cret") as client:
        yield client


UNAVAILABLE = failure(grpc.StatusCode.UNAVAILABLE)


async def test_a_read_is_tried_again(peer: Peer, client: faas.AsyncClient):
    peer.failures = [UNAVAILABLE] * 3
    assert (await client.function("x").refresh()).name == "x"
    assert len(peer.requests) == 4


async def test_it_gives_up_in_the_end(peer: Peer, client: faas.AsyncClient):
    peer.failures = [UNAVAILABLE] * 9
    with pytest.raises(faas.Unavailable):
        await client.function("x").refresh()
    assert len(peer.requests) == 5


async def test_an_invocation_is_sent_again_as_the_same(peer: Peer, client: faas.AsyncClient):
    peer.failures = [UNAVAILABLE] * 2
    await client.function("x").submit(1)
    assert len({request.request_id for request in peer.requests}) == 1
    assert len(peer.requests) == 3
    await client.function("x").submit(1)
    assert peer.requests[-1].request_id != peer.requests[0].request_id


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_a_change_that_may_have_been_made_is_not(peer: Peer, client, change: str):
    peer.failures = [UNAVAILABLE]
    with pytest.raises(faas.Unavailable):
        await getattr(client.function("x"), change)()
    assert len(peer.requests) == 1


async def test_it_waits_as_long_as_the_server_asks(peer: Peer, client: faas.AsyncClient):
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(50)
    peer.failures = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry)]
    await client.function("x").refresh()
    assert len(peer.requests) == 2
    peer.failures = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    with pytest.raises(faas.TooMuch):
        await client.function("x").refresh()
    assert len(peer.requests) == 3


async def test_a_wait_longer_than_the_deadline_is_not_begun(peer: Peer):
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(3600)
    peer.failures = [failure(grpc.StatusCode.UNAVAILABLE, retry)]
    async with faas.AsyncClient(f"http://127.0.0.1:{peer.port}", timeout_s=5) as client:
        with pytest.raises(faas.Unavailable) as caught:
            await client.function("x").refresh()
    assert caught.value.retry_after_s == 3600


async def test_the_credential_travels_as_bearer(peer: Peer, client: faas.AsyncClient):
    await client.function("x").refresh()
    assert peer.metadata[0]["authorization"] == "Bearer s3cret"
    assert peer.metadata[0]["user-agent"].startswith(f"faas-python/{faas.__version__}")
    async with faas.AsyncClient(f"http://127.0.0.1:{peer.port}") as nobody:
        await nobody.function("x").refresh()
    assert "authorization" not in peer.metadata[-1]


async def test_refusals_without_a_reason_go_by_their_status(peer: Peer, client):
    peer.failures = [failure(grpc.StatusCode.UNAUTHENTICATED)]
    with pytest.raises(faas.Unauthenticated):
        await client.function("x").refresh()
    peer.failures = [failure(grpc.StatusCode.INTERNAL)]
    with pytest.raises(faas.ServerError):
        await client.function("x").refresh()


async def test_an_unknown_reason_goes_by_its_status(peer: Peer, client: faas.AsyncClient):
    info = error_details_pb2.ErrorInfo(reason="OF_A_NEWER_SERVER", metadata={"a": "b"})
    peer.failures = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED, info)]
    with pytest.raises(faas.TooMuch) as caught:
        await client.function("x").refresh()
    assert (caught.value.reason, caught.value.metadata) == ("OF_A_NEWER_SERVER", {"a": "b"})


async def test_a_call_that_an_older_server_does_not_know_is_told_so(client: faas.AsyncClient):
    with pytest.raises(faas.NotSupported, match="older than this client"):
        await client.stats()


async def test_a_state_of_a_newer_server_is_an_end(client: faas.AsyncClient):
    record = invocation_pb2.Invocation(id="inv-1")
    record.MergeFromString(b"\x28\x63")  # status: 99
    invocation = client.invocation("inv-1")
    invocation._record = record
    assert (invocation.status, invocation.ended) == ("99", True)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Key and certificate of a private authority, for localhost."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", cert, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


async def test_tls_with_a_private_authority(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key, cert = certificate
    peer, server = Peer(), grpc.aio.server()
    server.add_generic_rpc_handlers([peer])
    pair = (key.read_bytes(), cert.read_bytes())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    url = f"https://localhost:{port}"
    try:
        async with faas.AsyncClient(url, timeout_s=5) as stranger:
            with pytest.raises(faas.Unavailable):
                await stranger.function("x").refresh()
        known = Contexts().with_server("private", Server(url, "t0ken", str(cert)))
        contexts.save(contexts.path(), known)
        async with faas.AsyncClient(context="private") as client:
            assert (await client.function("x").refresh()).name == "x"
        assert peer.metadata[-1]["authorization"] == "Bearer t0ken"
        async with faas.AsyncClient(f"http://localhost:{port}", timeout_s=5) as plain:
            with pytest.raises(faas.Unavailable):
                await plain.function("x").refresh()
    finally:
        await server.stop(0)
