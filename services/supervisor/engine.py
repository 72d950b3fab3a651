"""Whether functions can run in Docker here: an engine that answers, and the images."""

import asyncio
import subprocess
import sys
from pathlib import Path

from services.supervisor.errors import Refused
from services.supervisor.processes import kill_tree
from services.supervisor.screen import Screen, Update

RUNTIMES = ("python", "node", "go")

_SERVICES = Path(__file__).resolve().parent.parent
# An engine that takes longer to say that it is there is as good as none.
_ENGINE_TIMEOUT_S = 5


class NoDocker(Exception):
    """Functions cannot run in Docker here; the text says why."""


async def choose_runtime(asked: str | None, screen: Screen) -> str:
    """The runtime that functions get: as asked, or else Docker if it can be had.

    Raises Refused if Docker is asked for and cannot be had.
    """
    if asked != "process":
        try:
            await _prepare_docker(screen)
            return "docker"
        except NoDocker as error:
            if asked:
                raise Refused(f"The Docker runtime cannot be used: {error}") from error
            screen.warn(f"Without Docker: {error}")
    screen.warn(
        "The process runtime isolates nothing: functions run as your user, with your files and"
        " your network, without limits of memory and CPU. For development, with code that you"
        " trust."
    )
    return "process"


async def _prepare_docker(screen: Screen) -> None:
    """See to it that an engine has the images. Raises NoDocker."""
    with screen.step("Looking for a Docker engine"):
        missing = await asyncio.to_thread(_missing_images)
    if missing:
        with screen.step(f"Building the images of {', '.join(missing)}") as update:
            await _build(missing, update)
        if missing := await asyncio.to_thread(_missing_images):
            raise NoDocker(f"the images of {', '.join(missing)} are still missing.")


def _missing_images() -> list[str]:
    """The runtimes whose image the engine does not have. Raises NoDocker."""
    import docker
    from docker.errors import DockerException, ImageNotFound

    missing = []
    try:
        engine = docker.from_env(timeout=_ENGINE_TIMEOUT_S)
        try:
            engine.ping()
            for runtime in RUNTIMES:
                try:
                    engine.images.get(f"faas-runtime-{runtime}:latest")
                except ImageNotFound:
                    missing.append(runtime)
        finally:
            engine.close()
    except DockerException as error:
        raise NoDocker(f"no engine answers: {error}") from error
    return missing


async def _build(runtimes: list[str], update: Update) -> None:
    """Build images, showing what is printed. Raises NoDocker."""
    script = runtimes_directory() / "build.py"
    if not script.exists():
        raise NoDocker(f"the images of {', '.join(runtimes)} are missing: run `make images`.")
    building = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(script), *runtimes),
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
    if code:
        raise NoDocker(f"the images cannot be built: {'; '.join(lines[-3:]) or code}")


def runtimes_directory() -> Path:
    """`runtimes`: within `services` in a wheel, beside it in a clone."""
    packaged = _SERVICES / "assets" / "runtimes"
    return packaged if packaged.is_dir() else _SERVICES.parent / "runtimes"
