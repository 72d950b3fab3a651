"""What `faas doctor` looks at on a machine that has the servers: room, parts, Docker."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from faas.address import Address
from faas.cli.findings import Finding, bad, good, warning
from services.supervisor.docker import Engine, EngineAway
from services.supervisor.layout import Layout
from services.supervisor.logs import tail
from services.supervisor.runtimes import IMAGES
from services.supervisor.state import PartState, StackStatus, is_locked

FULL_BYTES = 64 << 20
"""With less PostgreSQL stops, and workers take nothing."""
SCARCE_BYTES = 1 << 30
OFTEN = 3
"""A part that was started again so often is not well."""


def machine(address: Address, data_dir: Path | None) -> Iterator[Finding]:
    """What is found on this machine, of the platform in `data_dir`."""
    layout = Layout.of(data_dir)
    yield from room(layout.data_dir)
    found = StackStatus.read(layout.state)
    if found is None or not found.is_alive() or not is_locked(layout):
        yield from engine_to_be()
        return
    yield from parts(found, address)
    if found.engine:
        yield from engine(Engine(Path(found.engine)))
    else:
        yield from engine_to_be()


def room(directory: Path) -> Iterator[Finding]:
    """Whether there can be data in `directory`, and how much."""
    nearest = next(each for each in (directory, *directory.parents) if each.exists())
    try:
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".faas-doctor-"):
            pass
    except OSError as error:
        yield bad(
            f"Nothing can be written to {directory}: {error.strerror}",
            "Whose is it? As another user it is another one; or name one: faas up --data-dir"
            " DIRECTORY",
        )
        return
    free = shutil.disk_usage(nearest).free
    if free < FULL_BYTES:
        yield bad(
            f"The disk of {directory} is full: {free >> 20} MiB are left",
            f"Make room there, or begin elsewhere: faas up --data-dir DIRECTORY. What is big:"
            f" du -sh {directory}/*",
        )
        return
    if free < SCARCE_BYTES:
        yield warning(
            f"The disk of {directory} has {free >> 20} MiB left",
            f"Make room before it is full: du -sh {directory}/*",
        )


def parts(found: StackStatus, address: Address) -> Iterator[Finding]:
    """The parts that `faas up` runs."""
    yield good(f"the platform in {found.data_dir} runs, at {found.url}")
    there = Address.parse(found.url)
    if address.target.rpartition(":")[2] != there.target.rpartition(":")[2]:
        yield warning(
            f"The platform of this machine is at {found.url}, and this asks {address}",
            f"faas --server {found.url}, or for good: faas context set here {found.url}",
        )
    for part in found.parts:
        if part.state is not PartState.SERVING:
            last = tail(Path(part.log), 1).strip()
            yield warning(
                f"{part.name} is {part.state}" + (f": {last[:200]}" if last else ""),
                f"It is started again by itself. Its log says why it ended: {part.log}",
            )
        elif part.restarts >= OFTEN:
            yield warning(
                f"{part.name} was started again {part.restarts} times",
                f"Its log says why it ended: {part.log}",
            )


def engine(engine: Engine) -> Iterator[Finding]:
    """The Docker engine that functions run in."""
    try:
        engine.ping()
        missing = [image for image in IMAGES if not engine.has_image(image)]
    except EngineAway as error:
        yield bad(f"Docker's engine, which functions run in, is away: {error}", _cure(error))
        return
    for image in missing:
        yield warning(
            f"Docker has no image {image}: what needs it waits",
            "`faas down` and `faas up` build it; in a clone: make images",
        )


def engine_to_be() -> Iterator[Finding]:
    """The Docker engine that functions could run in."""
    try:
        Engine.find().ping()
    except EngineAway as error:
        yield warning(f"Functions cannot run in Docker here: {error}", _cure(error))


def _cure(error: EngineAway) -> str:
    if isinstance(error.__cause__, PermissionError):
        return (
            "This user may not use it. Into its group: sudo usermod -aG docker $USER, then log"
            " in again."
        )
    if "DOCKER_HOST" in str(error):
        return "Name a socket: DOCKER_HOST=unix:///var/run/docker.sock, or unset it."
    return "Start it: sudo systemctl start docker. Without one, functions run as processes."
