"""`faas ls`, `get`, `rm`, `versions`, `code`: functions that are there."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from faas.cli.completion import function_names
from faas.cli.failures import ExitCode, Failed, say
from faas.cli.output import Format, Noun, Output, seconds, show, show_all, size
from faas.cli.session import connected
from faas.v1.function_pb2 import Function, FunctionVersion

NAME = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name or id of a function.", autocompletion=function_names),
]
Limit = Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")]

STATES = {"BUILDING": "33", "FAILED": "31;1"}

FUNCTION = Noun[Function](
    name=lambda f: f.name,
    columns={
        "NAME": lambda f: f.name,
        "RUNTIME": lambda f: f.runtime,
        "VERSION": lambda f: f.version,
        "MEMORY": lambda f: f"{f.memory_mb} MiB",
        "CPUS": lambda f: f.cpus,
        "TIMEOUT": lambda f: seconds(f.timeout),
        "STATE": lambda f: state(f.state),
        "UPDATED": lambda f: f.updated_at,
    },
    colours=STATES,
)

VERSION = Noun[FunctionVersion](
    name=lambda v: str(v.version),
    columns={
        "VERSION": lambda v: v.version,
        "RUNTIME": lambda v: v.runtime,
        "HANDLER": lambda v: v.handler,
        "MEMORY": lambda v: f"{v.memory_mb} MiB",
        "CPUS": lambda v: v.cpus,
        "TIMEOUT": lambda v: seconds(v.timeout),
        "STATE": lambda v: state(v.state),
        "CODE": lambda v: v.code_sha256[:12],
        "SIZE": lambda v: size(v.code_size_bytes),
        "CREATED": lambda v: v.created_at,
    },
    colours=STATES,
)


def ls(
    ctx: typer.Context,
    filter_: Annotated[
        str,
        typer.Option("--filter", help="Such as: runtime = python AND labels.team = search."),
    ] = "",
    order_by: Annotated[
        str, typer.Option(help="created_at, updated_at or name, or with desc.")
    ] = "",
    limit: Limit = 100,
    output: Output = Format.TABLE,
) -> None:
    """List functions, newest first."""
    with connected(ctx) as client:
        found = client.functions(filter=filter_, order_by=order_by)
        records = [function.record for function in islice(found, limit + 1 if limit else None)]
    shown = records[:limit] if limit else records
    none = "No function matches." if filter_ else "No functions yet: `faas init` begins one."
    show_all(FUNCTION, shown, output, empty=none)
    tell_more(records, shown)


def get(ctx: typer.Context, name: NAME, output: Output = Format.TABLE) -> None:
    """Show a function's settings."""
    with connected(ctx) as client:
        show(FUNCTION, client.function(name).refresh(), output)


def rm(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names or ids of functions.")
    ],
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="A function that is not there is no error.")
    ] = False,
) -> None:
    """Delete functions. What was accepted still runs; records of it stay readable."""
    from faas.errors import FunctionNotFound

    with connected(ctx) as client:
        missing = []
        for name in names:
            try:
                client.function(name).delete()
                say(f"{name} is deleted.")
            except FunctionNotFound:
                missing.append(name)
    if missing and not ignore_missing:
        raise Failed(f"There is no function {', '.join(missing)}.", ExitCode.NOT_FOUND)


def versions(
    ctx: typer.Context, name: NAME, limit: Limit = 100, output: Output = Format.TABLE
) -> None:
    """List a function's versions, newest first. Each can be invoked: `--version N`."""
    with connected(ctx) as client:
        found = list(islice(client.function(name).versions(), limit + 1 if limit else None))
    shown = found[:limit] if limit else found
    show_all(VERSION, shown, output)
    if output is Format.TABLE:
        for version in shown:
            if version.state_reason:
                say(f"Version {version.version}, {state(version.state)}: {version.state_reason}")
    tell_more(found, shown)


def pause(ctx: typer.Context, name: NAME) -> None:
    """Start nothing of a function until it is resumed: what is accepted waits."""
    with connected(ctx) as client:
        client.function(name).pause()
    say(f"{name} is paused: `faas resume {name}` starts what waits.")


def resume(ctx: typer.Context, name: NAME) -> None:
    """Start a paused function's invocations again."""
    with connected(ctx) as client:
        client.function(name).resume()
    say(f"{name} goes on.")


def code(
    ctx: typer.Context,
    name: NAME,
    version: Annotated[int, typer.Option(min=0, help="Which version; 0: the latest.")] = 0,
    to: Annotated[
        Path | None, typer.Option("--to", "-t", help="Write it to this file.", show_default=False)
    ] = None,
) -> None:
    """Write a function's code, as it was handed in: source text or an archive."""
    from faas.cli.files import written_whole

    if to is None and sys.stdout.isatty():
        with connected(ctx) as client:
            data = b"".join(client.function(name).download(version))
        try:
            print(data.decode())
        except UnicodeDecodeError:
            raise Failed("It is an archive: write it to a file, with --to FILE.") from None
        return
    with connected(ctx) as client:
        chunks = client.function(name).download(version)
        if to is None:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
        else:
            with written_whole(to) as file:
                for chunk in chunks:
                    file.write(chunk)


def state(of: FunctionVersion.State.ValueType) -> str:
    """A state's name."""
    return FunctionVersion.State.Name(of)


def tell_more(found: list[Function] | list[FunctionVersion], shown: object) -> None:
    """Tell that a list was cut."""
    if len(found) > len(shown):  # type: ignore[arg-type]
        say(f"There are more than {len(found) - 1}: --limit 0 lists all.")
