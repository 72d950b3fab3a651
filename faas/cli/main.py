"""Puts the commands together and runs one."""

from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

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
        app.command(entry_point.name)(entry_point.load())
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


def _name(entry_point: EntryPoint) -> str:
    return entry_point.name
