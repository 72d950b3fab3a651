"""`faas dlq`: what the platform gave up on, and taking it up again."""

from itertools import islice
from typing import Annotated

import typer

from faas.cli.failures import ExitCode, Failed, Group, say
from faas.cli.functions import Limit
from faas.cli.invocations import status
from faas.cli.options import moment
from faas.cli.output import Format, Noun, Output, show_all
from faas.cli.session import connected
from faas.v1.dead_letter_pb2 import DeadMessage, Redrive
from faas.v1.invocation_pb2 import Invocation

Function = Annotated[str, typer.Option("--function", "-f", help="Only of this function.")]
Code = Annotated[str, typer.Option(help="Only with this error, such as worker_lost.")]
Since = Annotated[str | None, typer.Option(help="Only from then on: 15m, 2h, 7d ago, or RFC 3339.")]
Until = Annotated[str | None, typer.Option(help="Only before: as --since.")]

DEAD_LETTER = Noun[Invocation](
    name=lambda i: i.id,
    columns={
        "ID": lambda i: i.id,
        "FUNCTION": lambda i: i.function_name,
        "STATUS": status,
        "CODE": lambda i: Invocation.ErrorCode.Name(i.error.code),
        "ATTEMPT": lambda i: i.attempt,
        "ENDED": lambda i: i.completed_at,
    },
    colours={"DEAD_LETTERED": "31;1"},
)

REDRIVE = Noun[Redrive](
    name=lambda r: r.invocation_id,
    columns={
        "SOURCE": lambda r: r.source_id,
        "INVOCATION": lambda r: r.invocation_id,
        "REFUSED": lambda r: r.refusal,
    },
    colours={},
)

MESSAGE = Noun[DeadMessage](
    name=lambda m: m.message,
    columns={
        "TIME": lambda m: m.time,
        "REASON": lambda m: m.reason,
        "MESSAGE": lambda m: m.message[:80],
    },
    colours={},
)

app = typer.Typer(
    name="dlq", help="Look into dead letters, and redrive them.", cls=Group, no_args_is_help=True
)


@app.command()
def ls(
    ctx: typer.Context,
    *,
    function: Function = "",
    code: Code = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List what the platform gave up on, newest first."""
    with connected(ctx) as client:
        found = client.dead_letters(
            function_id=function,
            code=code,
            created_after=moment("--since", since),
            created_before=moment("--until", until),
            page_size=min(limit + 1, 1000) if limit else 1000,
        )
        records = [i.record for i in islice(found, limit + 1 if limit else None)]
    show_all(DEAD_LETTER, records[:limit] if limit else records, output, empty="None.")
    if limit and len(records) > limit:
        say(f"There are more than {limit}: --limit 0 lists all.")


@app.command()
def redrive(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Invocations: inv-…")
    ] = None,
    *,
    function: Function = "",
    state: Annotated[
        str,
        typer.Option("--status", "-s", help="dead_lettered, failed or timed_out, without ids."),
    ] = "",
    code: Code = "",
    since: Since = None,
    until: Until = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All there are: needed where nothing narrows it.")
    ] = False,
    latest_version: Annotated[
        bool, typer.Option("--latest", help="Run the latest version, not the one that was run.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Take up again what failed: each with a new invocation, once however often it is asked."""
    if not (ids or function or state or code or since or until or all_):
        raise Failed("Which? Give ids, or --function, --status, --code, --since, or --all.")
    with connected(ctx) as client:
        redrives = list(
            client.redrive(
                ids or (),
                function_id=function,
                status=state,
                code=code,
                created_after=moment("--since", since),
                created_before=moment("--until", until),
                latest_version=latest_version,
            )
        )
    show_all(REDRIVE, redrives, output, empty="There is nothing to take up again.")
    refused = [r for r in redrives if r.refusal]
    if ids and refused:
        raise Failed(f"{len(refused)} of {len(redrives)} were refused.", ExitCode.REFUSED)


@app.command()
def messages(ctx: typer.Context, output: Output = Format.TABLE) -> None:
    """List messages from the queue that belong to no invocation."""
    with connected(ctx) as client:
        show_all(MESSAGE, client.dead_messages(), output, empty="None.")
