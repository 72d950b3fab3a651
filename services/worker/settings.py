"""Settings of a worker."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.settings import ServerSettings, config


class Settings(ServerSettings):
    """`FAAS_WORKER_…`."""

    model_config = config("worker")

    redis_url: str = Field(description="Redis, as a `redis://` or `unix://` URL.")
    functions_address: str = Field(description="Where FunctionService listens.")
    invocations_address: str = Field(description="Where InvocationService listens.")
    id: str = Field(
        "",
        description="Its id, `worker-` and a UUID. Empty: made once, kept in the state directory.",
    )
    runtime: Literal["process", "docker"] = Field(
        "docker",
        description="What functions run in: `docker`, or `process`, which isolates nothing"
        " and is for development only.",
    )
    concurrency: int = Field(4, ge=1, description="Invocations that it runs at once.")
    state_dir: Path = Field(
        Path("/var/lib/faas/worker"),
        description="Where it keeps its id, the code of the versions it has run, and verdicts"
        " until they are recorded. For one worker alone.",
    )
    work_dir: Path = Field(
        Path("/tmp/work"),  # noqa: S108 - named by the design; sandboxes' directories are 0700
        description="Where sandboxes have their directories. The same path on the host and"
        " in a worker that runs in a container.",
    )
    stack: str = Field(
        "default",
        description="The deployment it belongs to, as containers and directories are labelled.",
    )
    docker_socket: Path = Field(
        Path("/var/run/docker.sock"),
        description="The Docker engine's socket. Whoever reaches it is root on the host:"
        " the worker alone should.",
    )
    sandboxes: Literal["warm", "one-shot"] = Field(
        "warm",
        description="Under Docker: `warm` sandboxes are used again for calls of the same"
        " version of a function; `one-shot` is a fresh container for each call. Of functions"
        " that do not say themselves, by their setting `sandbox`.",
    )
    max_sandboxes: int = Field(
        64, ge=1, description="Warm sandboxes at once at the most, used or not."
    )
    sandbox_memory_mb: int = Field(
        0,
        ge=0,
        description="What the memory limits of all warm sandboxes may add up to. 0: half of"
        " the machine's memory.",
    )
    sandbox_idle_s: float = Field(
        300.0, gt=0, description="A warm sandbox that was not used for so long is removed."
    )
    sandbox_max_uses: int = Field(
        10_000, ge=1, description="After so many calls a warm sandbox is replaced."
    )
    kept_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The part of `max_sandboxes` and of `sandbox_memory_mb` that may be kept"
        " ready for functions with a `min_warm`; the rest is everybody's.",
    )
    prewarmed: int = Field(
        1,
        ge=0,
        description="How many sandboxes of each runtime are kept up that no function has"
        " yet, to spare new ones the start of a container.",
    )
    network: Literal["bridge", "none"] = Field(
        "bridge", description="Network of the containers that functions run in."
    )
    heartbeat_interval_s: float = Field(5.0, gt=0, description="How often it says that it lives.")
    heartbeat_fresh_s: float = Field(
        10.0, gt=0, description="It takes work only while a heartbeat was answered so recently."
    )
    max_result_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        le=1024 * 1024 * 1024,
        description="A result's size at the most. It takes no work with less than that free in"
        " its state directory.",
    )
    max_log_bytes: int = Field(
        1024 * 1024, ge=0, description="What is kept of one execution's output at the most."
    )
    max_output_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="A function that prints more than this is killed.",
    )
    max_unpacked_bytes: int = Field(
        512 * 1024 * 1024, ge=1, description="Size of a function's unpacked code at the most."
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        description="How long, after SIGTERM, running invocations may take to end; then they"
        " are given back.",
    )
