"""Puts the commands together and runs one."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer

from faas import __version__
from faas.cli import (
    accounts,
    call,
    contexts,
    dead_letters,
    deploy,
    dev,
    doctor,
    functions,
    init,
    invocations,
    invoke,
    schedules,
    stats,
    workers,
)
from faas.cli.failures import Group
from faas.cli.session import Session

COMMANDS_GROUP = "faas.commands"


def application() -> typer.Typer:
    """All commands: those of the client, and those that installed packages bring."""
    app = typer.Typer(
        name="faas",
        help="Deploy functions, invoke them, and see what became of it.",
        epilog="Exit codes: 0 done; 1 the function failed; 2 usage; 3 not found; 4 refused;"
        " 5 no server answers; 6 not ended in time; 7 credential; 8 server's mistake; 130 Ctrl-C.",
        cls=Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in (
        init.init,
        deploy.deploy,
        invoke.invoke,
        call.call,
        invoke.logs,
        functions.ls,
        functions.get,
        functions.rm,
        functions.versions,
        functions.pause,
        functions.resume,
        functions.code,
        stats.stats,
        dev.dev,
        doctor.doctor,
    ):
        app.command()(command)
    for account in (accounts.explain, accounts.replay, accounts.compare):
        invocations.app.command()(account)
    for group in (invocations.app, dead_letters.app, schedules.app, workers.app, contexts.app):
        app.add_typer(group)
    for entry_point in sorted(entry_points(group=COMMANDS_GROUP), key=_name):
        app.command(entry_point.name)(_command(entry_point))
    return app


def main() -> None:
    """Run what the command line says."""
    application()()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"faas-mesh {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            help="Where to, such as http://localhost:8080; also FAAS_SERVER.", show_default=False
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="Where to, by the name of a context; also FAAS_CONTEXT.", show_default=False
        ),
    ] = None,
    call_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that one call may take.")
    ] = 30.0,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", is_eager=True, callback=_version
        ),
    ] = False,
) -> None:
    del version  # its callback has said it
    ctx.obj = Session(server, context, call_timeout)


def _command(entry_point: EntryPoint) -> Callable[..., Any]:
    """The command; where something that it needs is not installed, one that says so."""
    try:
        command: Callable[..., Any] = entry_point.load()
        return command
    except ModuleNotFoundError as error:
        missing = error.name

    def unavailable() -> None:
        typer.echo(
            f"`faas {entry_point.name}` needs {missing}, which is not installed:"
            " pip install 'faas-mesh[server]'.",
            err=True,
        )
        raise typer.Exit(1)

    unavailable.__doc__ = f"Not available: {missing} is not installed."
    return unavailable


def _name(entry_point: EntryPoint) -> str:
    return entry_point.name
