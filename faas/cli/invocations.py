"""`faas invocations`: the records of what was invoked."""

from itertools import islice
from typing import Annotated

import typer

from faas.cli.failures import ExitCode, Failed, Group, say
from faas.cli.functions import Limit
from faas.cli.invoke import how_to_go_on, print_lines
from faas.cli.options import moment
from faas.cli.output import Format, Noun, Output, seconds, show, show_all
from faas.cli.session import connected
from faas.v1.invocation_pb2 import Invocation

ID = Annotated[str, typer.Argument(metavar="ID", help="An invocation's id: inv-…")]


def status(record: Invocation) -> str:
    """Its state, or a number where this client is too old to know it."""
    known = record.status in Invocation.Status.values()
    return Invocation.Status.Name(record.status) if known else str(record.status)


INVOCATION = Noun[Invocation](
    name=lambda i: i.id,
    columns={
        "ID": lambda i: i.id,
        "FUNCTION": lambda i: i.function_name,
        "VERSION": lambda i: i.function_version,
        "STATUS": status,
        "ATTEMPT": lambda i: i.attempt,
        "DURATION": lambda i: seconds(i.metrics.duration) if i.HasField("metrics") else "-",
        "CREATED": lambda i: i.created_at,
    },
    colours={
        "COMPLETED": "32",
        "RUNNING": "36",
        "PENDING": "33",
        "FAILED": "31",
        "TIMED_OUT": "31",
        "DEAD_LETTERED": "31;1",
        "CANCELLED": "35",
    },
)

app = typer.Typer(
    name="invocations",
    help="Look into invocations: what was run, when, and what became of it.",
    cls=Group,
    no_args_is_help=True,
)


@app.command()
def ls(
    ctx: typer.Context,
    *,
    filter_: Annotated[
        str, typer.Option("--filter", help="Such as: status = FAILED AND labels.team = search.")
    ] = "",
    function: Annotated[str, typer.Option("--function", "-f", help="Only of this function.")] = "",
    state: Annotated[
        str, typer.Option("--status", "-s", help="Only in this state, such as failed.")
    ] = "",
    since: Annotated[
        str | None, typer.Option(help="Only from then on: 15m, 2h, 7d ago, or RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before: as --since.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List invocations, newest first."""
    with connected(ctx) as client:
        found = client.invocations(
            filter=filter_,
            function_id=function,
            status=state,
            created_after=moment("--since", since),
            created_before=moment("--until", until),
            page_size=min(limit + 1, 1000) if limit else 1000,
        )
        records = [i.record for i in islice(found, limit + 1 if limit else None)]
    show_all(INVOCATION, records[:limit] if limit else records, output, empty="None.")
    if limit and len(records) > limit:
        say(f"There are more than {limit}: --limit 0 lists all.")


@app.command()
def get(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Show one record, whole."""
    with connected(ctx) as client:
        show(INVOCATION, client.invocation(id_).refresh(), output)


@app.command()
def cancel(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Invocations: inv-…")
    ] = None,
    *,
    function: Annotated[
        str, typer.Option("--function", "-f", help="All of this function that have not ended.")
    ] = "",
    state: Annotated[
        str, typer.Option("--status", "-s", help="With --function: only pending, or running.")
    ] = "",
) -> None:
    """End invocations: what runs is killed. One that has ended already stays as it is."""
    from faas.errors import InvocationEnded

    if bool(ids) == bool(function):
        raise Failed("Which? Give ids, or --function NAME.")
    with connected(ctx) as client:
        if function:
            count = client.function(function).cancel_all(status=state)
            say(f"{count} invocations of {function} are cancelled.")
        for id_ in ids or ():
            try:
                client.invocation(id_).cancel()
                say(f"{id_} is cancelled.")
            except InvocationEnded as error:
                say(str(error))


@app.command()
def wait(
    ctx: typer.Context,
    id_: ID,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="So many seconds at most.", show_default=False)
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Wait until an invocation has ended, and show it. Exit code 1: it failed."""
    with connected(ctx) as client:
        try:
            record = client.invocation(id_).wait(timeout)
        except KeyboardInterrupt:
            say(f"\n{how_to_go_on(id_)}")
            raise
    show(INVOCATION, record, output)
    _exit_as(record)


@app.command()
def watch(ctx: typer.Context, id_: ID) -> None:
    """Show an invocation's states and lines as they come, until it has ended."""
    with connected(ctx) as client:
        invocation = client.invocation(id_)
        shown = ""
        try:
            for event in invocation.watch():
                print_lines(event.lines, to_stdout=True)
                if event.HasField("invocation") and invocation.status != shown:
                    shown = invocation.status
                    say(f"{shown} (attempt {invocation.record.attempt})")
        except KeyboardInterrupt:
            say(f"\n{how_to_go_on(id_)}")
            raise
    _exit_as(invocation.record)


def _exit_as(record: Invocation) -> None:
    if record.status != Invocation.COMPLETED:
        raise typer.Exit(ExitCode.FUNCTION_FAILED)
