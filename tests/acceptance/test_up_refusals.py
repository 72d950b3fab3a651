"""`faas up` refuses in a sentence, and then nothing has changed."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from services.supervisor.layout import Layout
from services.supervisor.state import is_locked
from tests.acceptance.stack import START_TIMEOUT_S, Stack, faas, launch


def refused(*options: str) -> str:
    """What `faas up` says when it does not even begin."""
    ended = subprocess.run([faas(), "up", *options], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return " ".join(ended.stderr.split())


def test_a_taken_port(directory: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused("--data-dir", str(directory / "data"), "--port", str(port))
    assert f"Port {port} of 127.0.0.1 is taken" in said
    assert "--port" in said
    assert not Layout.of(directory / "data").run_dir.exists()


def test_the_port_of_another_stack(stack: Stack, directory: Path) -> None:
    port = stack.url.rpartition(":")[2]
    said = refused("--data-dir", str(directory / "data"), "--port", port)
    assert f"Port {port} of 127.0.0.1 is taken" in said


def test_a_taken_data_directory(stack: Stack) -> None:
    said = refused("--data-dir", str(stack.data_dir), "--port", "0")
    assert f"taken by the stack at {stack.url}" in said
    assert f"faas down --data-dir {stack.data_dir}" in said
    assert stack.is_healthy()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_host_that_others_reach(directory: Path, host: str) -> None:
    said = refused("--data-dir", str(directory / "data"), "--host", host)
    assert "there is no access control yet" in said
    assert "--insecure" in said
    assert not (directory / "data").exists()


def test_a_host_that_is_no_address(directory: Path) -> None:
    said = refused("--data-dir", str(directory / "data"), "--host", "example.com")
    assert "--host 'example.com': must be an IP address" in said


def test_an_address_of_another_machine(directory: Path) -> None:
    data = str(directory / "data")
    said = refused("--data-dir", data, "--host", "192.0.2.1", "--insecure")
    assert "--host 192.0.2.1" in said


def test_a_data_directory_that_is_a_file(directory: Path) -> None:
    (directory / "data").write_text("mine")
    said = refused("--data-dir", str(directory / "data"), "--port", "0")
    assert "The data directory cannot be used" in said
    assert (directory / "data").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as somebody else")
def test_a_data_directory_that_is_closed_to_postgresqls_user(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    said = refused("--data-dir", str(closed / "data"), "--port", "0", "--runtime", "process")
    assert "PostgreSQL refuses to run as root" in said
    assert "/var/lib/faas" in said


def test_a_part_that_does_not_start(directory: Path) -> None:
    stack = launch(directory / "data", settings={"FAAS_FUNCTIONS_DATABASE_CONNECTIONS": "0"})
    try:
        assert stack.process.wait(START_TIMEOUT_S) == 1
    finally:
        stack.stop()
    said = stack.output.read_text()
    assert "functions does not start" in said
    assert "database_connections" in said
    assert "Traceback (most" not in said.partition("functions does not start")[0]
    assert not is_locked(stack.layout)


def test_a_setting_that_is_no_number(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAS_WORKER_DRAIN_TIMEOUT_S", "soon")
    said = refused("--data-dir", str(directory / "data"), "--port", "0", "--runtime", "process")
    assert "FAAS_WORKER_DRAIN_TIMEOUT_S=soon: must be seconds" in said


def test_docker_that_is_asked_for_and_is_not_there(directory: Path) -> None:
    ended = subprocess.run(
        [faas(), "up", "--data-dir", str(directory / "data"), "--port", "0", "--runtime", "docker"],
        env={**os.environ, "DOCKER_HOST": f"unix://{directory}/no-engine.sock"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "The Docker runtime cannot be used: " in ended.stderr
