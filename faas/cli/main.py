"""Puts the commands together and runs one."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer

from faas import __version__

COMMANDS_GROUP = "faas.commands"


def application() -> typer.Typer:
    """All commands: those of the client, and those that installed packages bring."""
    app = typer.Typer(
        name="faas",
        help="Deploy functions, invoke them, and see what became of it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for entry_point in sorted(entry_points(group=COMMANDS_GROUP), key=_name):
        app.command(entry_point.name)(_command(entry_point))
    return app


def main() -> None:
    """Run what the command line says."""
    application()()


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"faas-mesh {__version__}")
        raise typer.Exit


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
