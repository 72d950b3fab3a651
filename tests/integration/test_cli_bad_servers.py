"""The command where the server refuses, is of another version or says nothing; and Ctrl-C.

Whenever it comes, Ctrl-C ends a command with 130, without a stack, with nothing left
behind, and with how to go on where something may have been begun.
"""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import faas
from faas.v1 import function_pb2, invocation_pb2
from tests.conftest import wait_until
from tests.integration.command import Command, Said
from tests.platform import Platform

pytestmark = pytest.mark.timeout(900)
HELLO = "def handler(payload):\n    return payload\n"
ID = "inv-01900000-0000-7000-8000-000000000000"


class Peer(grpc.GenericRpcHandler):
    """A gRPC server that refuses everything, or answers what it is told."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.UNIMPLEMENTED
        self.answers: dict[str, bytes] = {}
        self.credentials: set[str] = set()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        metadata = dict(details.invocation_metadata)
        self.credentials.add(str(metadata.get("authorization")))
        answer = self.answers.get(details.method.rpartition("/")[2])

        async def unary(_request: bytes, context: Any) -> bytes:
            if answer is None:
                await context.abort(self.code, "no")
            return answer

        return grpc.unary_unary_rpc_method_handler(unary)


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
def command(peer: Peer, tmp_path: Path) -> Command:
    return Command(f"http://127.0.0.1:{peer.port}", tmp_path / "config")


async def run(command: Command, *arguments: str) -> Said:
    said = await asyncio.to_thread(command, *arguments)
    assert "Traceback" not in said.err
    return said


REFUSALS = [
    (grpc.StatusCode.UNAUTHENTICATED, 7, "FAAS_TOKEN"),
    (grpc.StatusCode.PERMISSION_DENIED, 7, "credential"),
    (grpc.StatusCode.UNIMPLEMENTED, 8, "older than this client"),
    (grpc.StatusCode.INTERNAL, 8, "the server's log"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, 4, "no"),
]


@pytest.mark.parametrize(("code", "exit_code", "said"), REFUSALS)
@pytest.mark.parametrize(
    "arguments",
    [["ls"], ["invoke", "hello", "{}"], ["invocations", "get", ID], ["deploy", "hello.py"]],
    ids=lambda arguments: arguments[0],
)
async def test_a_server_that_refuses(
    peer: Peer, command: Command, tmp_path: Path, monkeypatch, arguments, code, exit_code, said
):
    (tmp_path / "hello.py").write_text(HELLO)
    monkeypatch.chdir(tmp_path)
    peer.code = code
    found = await run(command, *arguments)
    assert (found.code, found.out) == (exit_code, ""), found
    assert said in found.err


async def test_the_credential_is_sent_and_never_shown(peer: Peer, command: Command):
    peer.code = grpc.StatusCode.UNAUTHENTICATED
    command.environment["FAAS_TOKEN"] = "s3cret"
    found = await run(command, "ls")
    assert found.code == 7
    assert peer.credentials == {"Bearer s3cret"}
    assert "s3cret" not in found.err


async def test_a_newer_server_says_more_than_is_known(peer: Peer, command: Command):
    """A state and a field that this client has never heard of are shown, or left out."""
    record = invocation_pb2.Invocation(id=ID, function_name="hello")
    newer = record.SerializeToString() + b"\x28\x63" + b"\xfa\x3e\x03new"  # status 99; field 1007
    peer.answers["GetInvocation"] = newer
    found = await run(command, "invocations", "get", ID, "-o", "json")
    assert (found.code, found.err) == (0, "")
    assert '"status": 99' in found.out
    listed = b"\x0a" + bytes([len(newer)]) + newer
    peer.answers["ListInvocations"] = listed
    found = await run(command, "invocations", "ls")
    assert found.code == 0
    assert found.out.splitlines()[1].split()[3] == "99"


async def test_an_older_server_says_less(peer: Peer, command: Command):
    peer.answers["GetFunction"] = function_pb2.Function(name="hello").SerializeToString()
    found = await run(command, "get", "hello")
    assert (found.code, found.out) == (0, "name  hello\n")


# Ctrl-C.


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[socket.socket, Command]]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        server.settimeout(60)
        yield server, Command(url, tmp_path / "config")


def interrupted(process: "subprocess.Popen[str]") -> Said:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert (process.returncode, out) == (130, ""), err
    return Said(process.returncode, out, err)


@pytest.mark.parametrize(
    ("arguments", "goes_on"),
    [
        (["ls"], ""),
        (["logs", ID, "--follow"], ""),
        (["doctor"], ""),
        (["invoke", "hello", "{}"], "--request-id "),
        (["invoke", "hello", "{}", "--async", "--request-id", "order-3"], "--request-id order-3"),
        (["invocations", "wait", ID], f"faas invocations watch {ID}"),
        (["invocations", "watch", ID], f"faas invocations cancel {ID}"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_ctrl_c_while_a_server_is_silent(silent, arguments, goes_on):
    server, command = silent
    process = command.popen(*arguments)
    connection, _ = server.accept()
    with connection:
        said = interrupted(process)
    assert goes_on in said.err


def test_ctrl_c_while_deploying_to_a_silent_server(silent, tmp_path: Path):
    server, command = silent
    (tmp_path / "hello.py").write_text(HELLO)
    (aside := tmp_path / "aside").mkdir()
    command.environment["TMPDIR"] = str(aside)
    process = command.popen("deploy", str(tmp_path / "hello.py"))
    connection, _ = server.accept()
    with connection:
        interrupted(process)
    assert list(aside.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["invoke", "hello", "-"], ["context", "set", "x", "http://y", "--token-stdin"]],
    ids=lambda arguments: arguments[0],
)
def test_ctrl_c_while_it_reads_what_is_typed(silent, tmp_path: Path, arguments):
    _, command = silent
    read, write = os.pipe()
    process = command.popen(*arguments, stdin=read)
    os.write(write, b"half a line")

    def has_read() -> bool:
        left = fcntl.ioctl(read, termios.FIONREAD, bytes(4))
        return int.from_bytes(left, sys.byteorder) == 0

    wait_until(has_read, "it reads", 120)
    interrupted(process)
    os.close(read)
    os.close(write)
    assert not (tmp_path / "config").exists()


IN_THE_MIDDLE = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[0] = "faas"
from faas.cli import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "faas.cli.deploy", "faas.client", "grpc.aio"])
def test_ctrl_c_while_it_starts(silent, module: str):
    _, command = silent
    command.environment["INTERRUPT_AT"] = module
    done = subprocess.run(
        [*(os.fspath(command.faas.with_name("python")), "-c", IN_THE_MIDDLE), "ls"],
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_interrupted_is_done_once_when_it_is_said_again(
    platform: Platform, tmp_path: Path
):
    """What Ctrl-C said, followed to the letter."""
    command = Command(platform.url, tmp_path / "config")
    with faas.Client(platform.url) as client:
        client.deploy(HELLO, name="cli-once", runtime="python")
        first = command.ok("invoke", "cli-once", "1", "--async", "--request-id", "interrupted")
        again = command.ok("invoke", "cli-once", "1", "--request-id", "interrupted", "-o", "name")
        assert first.out == again.out
        assert len(list(client.invocations(function_id="cli-once"))) == 1
