"""A Docker engine of a test's own, to be killed: the one that is there is not touched."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.worker.sandboxes import IMAGES
from tests.conftest import wait_until

READY_S = 180


class Engine:
    """One dockerd, with a directory and a network namespace of its own."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "docker.sock"
        self._directory = directory
        self._pidfile = directory / "dockerd.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._begin()
        wait_until(self._answers, f"the engine answers: see {self._directory}", READY_S)

    def _begin(self) -> None:
        # What a killed one leaves, it refuses to start by.
        self._pidfile.unlink(missing_ok=True)
        command = ["dockerd", "--host", f"unix://{self.socket}", "--pidfile", self._pidfile]
        command += ["--data-root", self._directory / "data", "--exec-root", self._directory / "run"]
        # A second engine beside another must not see its bridge, which it would remove.
        command = ["unshare", "--net", *command, "--bridge=none", "--iptables=false"]
        with (self._directory / "dockerd.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def close(self) -> None:
        """Remove its containers and end it."""
        assert self._process is not None
        if found := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", *found)
        self._process.terminate()
        self._process.wait(60)
        # It mounts its data on itself, and leaves that.
        data = self._directory / "data"
        subprocess.run(["umount", "--lazy", data], check=False, capture_output=True)

    def docker(self, *arguments: str) -> str:
        """What a docker command prints that is sent to this engine."""
        command = ["docker", "--host", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def load(self, *images: str) -> None:
        """Bring images along from the engine that is there."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            command = ["docker", "--host", f"unix://{self.socket}", "load", "--quiet"]
            subprocess.run(command, check=True, stdin=saving.stdout, stdout=subprocess.DEVNULL)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            # It gives its containerd 15 s, which a busy machine may not have: once more.
            self._begin()
        command = ["docker", "--host", f"unix://{self.socket}", "version"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with the runtime image of Python; skips where one cannot be started."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("starting an engine of one's own needs root and dockerd")
    directory = Path(tempfile.mkdtemp(prefix="faas-engine-", dir="/tmp"))
    engine = Engine(directory)
    engine.start()
    try:
        engine.load(IMAGES["python"])
        yield engine
    finally:
        engine.close()
        shutil.rmtree(directory, ignore_errors=True)
