"""What functions run in: Docker, if an engine answers and the images can be had; else processes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from services.supervisor.docker import Engine, EngineAway
from services.supervisor.errors import Refused
from services.supervisor.processes import describe, kill_tree
from services.supervisor.screen import Screen, Update

IMAGES = tuple(
    f"{name}:latest"
    for name in ("faas-runtime-python", "faas-runtime-node", "faas-runtime-go", "faas-build-go")
)

_SERVICES = Path(__file__).resolve().parent.parent


class NoDocker(Exception):
    """Functions cannot run in Docker here; the text says why."""


async def choose(asked: str | None, screen: Screen) -> Engine | None:
    """The engine that functions run in; None: they run as processes.

    As asked, or else Docker if it can be had. Raises Refused if Docker is asked for
    and cannot be had.
    """
    if asked != "process":
        try:
            return await _prepared_engine(screen)
        except (NoDocker, EngineAway) as error:
            if asked:
                raise Refused(f"The Docker runtime cannot be used: {error}.") from error
            screen.warn(f"Docker cannot be used: {error}.")
    screen.warn(
        "The process runtime isolates nothing: functions run as your user, with your files and"
        " your network, without limits of memory and CPU. For development, with code that you"
        " trust."
    )
    return None


async def _prepared_engine(screen: Screen) -> Engine:
    """An engine that has the images. Raises NoDocker or EngineAway."""
    engine = Engine.find()
    with screen.step("Looking for a Docker engine"):
        await asyncio.to_thread(engine.ping)
    with screen.step("Building the runtime images, where they are not current") as update:
        failure = await _build(engine, update)
        missing = [name for name in IMAGES if not await asyncio.to_thread(engine.has_image, name)]
        if missing:
            raise NoDocker(f"{', '.join(missing)} cannot be built: {failure}")
    if failure:
        screen.warn(f"The runtime images may be of another version: {failure}.")
    return engine


async def _build(engine: Engine, update: Update) -> str:
    """Build what is not current, showing what is printed; why that failed, or ""."""
    building = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(assets() / "build.py")),
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert building.stdout is not None
    lines = []
    try:
        async for line in building.stdout:
            if text := line.decode(errors="replace").strip():
                lines.append(text)
                update(text)
        code = await building.wait()
    finally:
        if building.returncode is None:
            kill_tree(building.pid)
            await building.wait()
    return "" if code == 0 else "; ".join(lines[-2:]) or describe(code)


def assets() -> Path:
    """The directory `runtimes`: within `services` in a wheel, beside it in a clone."""
    packaged = _SERVICES / "assets" / "runtimes"
    return packaged if packaged.is_dir() else _SERVICES.parent / "runtimes"
