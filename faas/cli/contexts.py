"""`faas context`: servers by name."""

import sys
from typing import Annotated

import typer

from faas import contexts
from faas.address import Address
from faas.cli.completion import context_names
from faas.cli.failures import Group, say
from faas.cli.output import Format, Output, table, write
from faas.contexts import Server

NAME = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A context's name.", autocompletion=context_names),
]

app = typer.Typer(
    name="context", help="Name servers, and choose one.", cls=Group, no_args_is_help=True
)


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List contexts; * is the one that is used."""
    known = contexts.load(contexts.path())
    if output is Format.NAME:
        for name in sorted(known.servers):
            print(name)
    elif output is Format.TABLE and known.servers:
        rows = [
            ["*" if name == known.current else "", name, server.address, _credential(server)]
            for name, server in sorted(known.servers.items())
        ]
        table(["", "NAME", "SERVER", "CREDENTIAL"], rows, {})
    elif output is Format.TABLE:
        say(f"None: {contexts.choose().address} is used. `faas context set NAME URL` makes one.")
    else:
        found = [
            {
                "name": name,
                "server": server.address,
                "current": name == known.current,
                "credential": bool(server.token),
            }
            for name, server in sorted(known.servers.items())
        ]
        write(found, output)


@app.command(name="set")
def set_(
    name: NAME,
    server: Annotated[str, typer.Argument(help="Such as https://faas.example.")],
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="Read a credential from stdin, and store it."),
    ] = False,
    certificate: Annotated[
        str | None,
        typer.Option(help="File of a private authority's certificate.", show_default=False),
    ] = None,
) -> None:
    """Make a context, or change it. The first one is used from then on."""
    Address.parse(server)
    token = sys.stdin.readline().strip() if token_stdin else None
    file = contexts.path()
    known = contexts.load(file).with_server(name, Server(server, token, certificate))
    contexts.save(file, known)
    say(f"{name} is {server}." + ("" if known.current == name else f" `faas context use {name}`."))


@app.command()
def use(name: NAME) -> None:
    """Use a context from now on."""
    from dataclasses import replace

    file = contexts.path()
    known = contexts.load(file)
    server = known.named(name)
    contexts.save(file, replace(known, current=name))
    say(f"{server.address} is used from now on.")


@app.command()
def rm(name: NAME) -> None:
    """Forget a context and its credential."""
    file = contexts.path()
    contexts.save(file, contexts.load(file).without(name))
    say(f"{name} is forgotten.")


def _credential(server: Server) -> str:
    return "yes" if server.token else "no"
