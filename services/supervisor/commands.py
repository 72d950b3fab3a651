"""`faas up`, `faas down`, `faas status`. What they need is imported when they run."""

import asyncio
import enum
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.supervisor.errors import Failed, Refused

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where all data of the stack is. Default: ~/.local/state/faas, as root /var/lib/faas.",
        show_default=False,
    ),
]


class Runtime(enum.StrEnum):
    """What functions run in."""

    DOCKER = "docker"
    PROCESS = "process"


class Output(enum.StrEnum):
    """How something is shown."""

    TEXT = "text"
    JSON = "json"


def up(
    *,
    data_dir: DataDir = None,
    host: Annotated[str, typer.Option(help="IP address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any free one.")
    ] = 8080,
    runtime: Annotated[
        Runtime | None,
        typer.Option(
            help="What functions run in. Default: docker, where an engine answers and images can"
            " be had; else process, which isolates nothing.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers to start.")] = 2,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is up; end it with `faas down`.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Let --host be reached by others, though there is no access control yet.",
        ),
    ] = False,
) -> None:
    """Bring the whole platform up on this machine, and keep it up until Ctrl-C.

    PostgreSQL, a Redis-compatible server, Envoy, the services and the workers run as
    child processes, with all their data in one directory. Start it again on the same
    directory and everything is still there.
    """
    with _explained():
        from services.supervisor.request import Request

        asked = runtime.value if runtime else None
        request = Request(data_dir, host, port, asked, workers, insecure)
        if detach:
            from services.supervisor.down import detached

            detached(request)
        else:
            from services.supervisor.screen import Screen
            from services.supervisor.up import up as bring_up

            asyncio.run(bring_up(request, Screen()))


def down(
    data_dir: DataDir = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds until what has not ended is killed.")
    ] = 90,
) -> None:
    """End what `faas up` started: what runs may finish, all data stays."""
    with _explained():
        from services.supervisor.down import down as take_down

        ended = take_down(data_dir, timeout)
        if ended is None:
            typer.echo("Nothing runs here.")
        elif ended.killed:
            typer.echo("It did not end by itself, and was killed. All data is there.")
        else:
            typer.echo("Ended. All data is there: `faas up` goes on with it.")


def status(
    data_dir: DataDir = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Show what `faas up` runs: its parts, their processes, and where it listens.

    The exit code is 0 if everything serves, 1 if something does not, 3 if nothing runs.
    """
    with _explained():
        from services.supervisor.down import status as look

        found, code = look(data_dir)
        if output is Output.JSON:
            typer.echo(json.dumps(asdict(found) if found else None, indent=2))
        elif found is None:
            typer.echo("Nothing runs here.")
        else:
            typer.echo(f"{found.url}  {found.runtime} runtime, data in {found.data_dir}")
            for part in found.parts:
                restarts = f"  restarts: {part.restarts}" if part.restarts else ""
                typer.echo(f"  {part.name:<12} {part.state:<9} {part.pid or '-':>8}{restarts}")
    raise typer.Exit(code)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what is wrong in a sentence where that is known."""
    try:
        yield
    except (Refused, Failed) as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("faas", "services"):
            raise
        typer.secho(
            f"This needs the servers, and {error.name!r} is not installed:"
            " pip install 'faas-mesh[server]'.",
            fg=typer.colors.RED,
            err=True,
        )
        raise typer.Exit(1) from error
