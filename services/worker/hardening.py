"""What the engine is told of a container: hardened always, from numbers checked here.

A function's container has no capability, no way to gain one, no writable file but
in a small /tmp, and no more memory, CPU, processes and descriptors than it was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.worker.sandbox_dirs import SandboxDirs

MIB = 1024 * 1024
USER = "65532:65532"
CODE_DIR = "/app/function"
RUN_DIR = "/run/faas"
SOURCE_DIR = "/source"

MAX_PROCESSES = 64
MAX_FILES = 1024
MAX_TMP_MB = 64
"""At the most: /tmp is in memory, and counts as the function's."""
MAX_TMP_INODES = 4096
SHARED_MEMORY_MB = 8

BUILD_MEMORY_MB = 1024
BUILD_PROCESSES = 256


@dataclass(frozen=True)
class Owner:
    """Whose containers these are: how they are found again when their worker is dead."""

    stack: str
    worker_id: str
    boots: Path
    """Where this stack's workers hold the locks of their boots."""
    boot: str

    @classmethod
    def of(cls, dirs: SandboxDirs, stack: str, worker_id: str) -> "Owner":
        """The owner of what is in `dirs`."""
        return cls(stack, worker_id, dirs.boot_file.parent, dirs.boot)

    @property
    def labels(self) -> dict[str, str]:
        """On every container."""
        return {**self.stack_labels, "faas.worker": self.worker_id, "faas.boot": self.boot}

    @property
    def stack_labels(self) -> dict[str, str]:
        """On every container of the stack's workers that share the directory of boots.

        A stack of the same name with another directory is another: whether its
        workers live cannot be seen here.
        """
        return {"faas.stack": self.stack, "faas.boots": str(self.boots)}


@dataclass(frozen=True)
class Limits:
    """What one container may use."""

    memory_mb: int
    cpus: float

    @property
    def tmp_mb(self) -> int:
        """Of /tmp: filling it must not fill the memory."""
        return min(self.memory_mb // 2, MAX_TMP_MB)

    def to_engine(self) -> dict[str, Any]:
        """As the engine takes them, at creation and for an update."""
        memory = self.memory_mb * MIB
        # No swap: what is over the limit is over.
        return {"Memory": memory, "MemorySwap": memory, "NanoCpus": round(self.cpus * 1e9)}


def function_container(
    *,
    owner: Owner,
    image: str,
    network: str,
    limits: Limits,
    code_dir: Path,
    run_dir: Path,
    environment: Mapping[str, str],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """A container that runs a function; its code and the worker's socket are mounted."""
    host = {
        **_hardened(MAX_PROCESSES),
        **limits.to_engine(),
        "NetworkMode": network,
        "ReadonlyRootfs": True,
        "ShmSize": SHARED_MEMORY_MB * MIB,
        "Tmpfs": {
            "/tmp": "rw,exec,nosuid,nodev,mode=1777,"  # noqa: S108 - in the container
            f"size={limits.tmp_mb}m,nr_inodes={MAX_TMP_INODES}"
        },
        "Mounts": [
            _mount(code_dir, CODE_DIR, read_only=True),
            _mount(run_dir, RUN_DIR, read_only=True),
        ],
    }
    return {
        "Image": image,
        "User": USER,
        "Hostname": "function",
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {**labels, **owner.labels},
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
    }


def build_container(
    *, owner: Owner, image: str, source: Path, command: list[str], cpus: float
) -> dict[str, Any]:
    """A container that compiles what is in `source`, and leaves there what it made.

    Its root file system is its own to write: the compiler's cache came with the image.
    """
    host = {
        **_hardened(BUILD_PROCESSES),
        **Limits(BUILD_MEMORY_MB, cpus).to_engine(),
        "NetworkMode": "none",
        "Mounts": [_mount(source, SOURCE_DIR, read_only=False)],
    }
    return {
        "Image": image,
        "Cmd": command,
        "User": USER,
        "WorkingDir": SOURCE_DIR,
        "Labels": {"faas.build": "go", **owner.labels},
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
    }


def _hardened(max_processes: int) -> dict[str, Any]:
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": max_processes,
        "Ulimits": [
            {"Name": "nofile", "Soft": MAX_FILES, "Hard": MAX_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        # The host out of memory: functions go before what runs them.
        "OomScoreAdj": 500,
        # It reaps what functions leave, and lets signals work as they do elsewhere.
        "Init": True,
        "IpcMode": "private",
        # Output is read by attaching; nothing of it is kept on the host.
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
    }


def _mount(source: Path, target: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
