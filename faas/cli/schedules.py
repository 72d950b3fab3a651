"""`faas schedules`: functions that are invoked at the times that a cron line names."""

from itertools import islice
from typing import Annotated, Any

import typer

from faas.cli.failures import Group, say
from faas.cli.functions import NAME, Limit
from faas.cli.options import pairs
from faas.cli.output import Format, Noun, Output, show, show_all
from faas.cli.payloads import read_payload
from faas.cli.session import connected
from faas.v1.schedule_pb2 import Schedule

ID = Annotated[str, typer.Argument(metavar="ID", help="A schedule's id: sched-…")]
CRON = "Minute, hour, day of month, month, day of week; or @hourly, @daily, …"
Payload = Annotated[
    str | None,
    typer.Option("--payload", "-p", help="JSON, @FILE, or -.", show_default=False),
]
TimeZone = Annotated[str | None, typer.Option(help="Such as Europe/Berlin.", show_default="UTC")]
Version = Annotated[int | None, typer.Option(min=0, help="Which version; 0: the latest.")]
Overlap = Annotated[
    str | None,
    typer.Option(
        help="Where the one before has not ended: allow, skip or replace.", show_default="allow"
    ),
]
Misfire = Annotated[
    str | None,
    typer.Option(
        help="With what was missed: fire-once, skip-missed or fire-all.",
        show_default="fire-once",
    ),
]

SCHEDULE = Noun[Schedule](
    name=lambda s: s.id,
    columns={
        "ID": lambda s: s.id,
        "FUNCTION": lambda s: s.function_id,
        "CRON": lambda s: s.cron,
        "ZONE": lambda s: s.time_zone or "UTC",
        "NEXT": lambda s: "paused" if s.paused else s.next_fire_at,
        "LAST": lambda s: s.last_fire_at,
        "PROBLEM": lambda s: s.problem,
    },
    colours={"paused": "33"},
)

app = typer.Typer(
    name="schedules",
    help="Invoke functions at times that cron lines name.",
    cls=Group,
    no_args_is_help=True,
)


@app.command()
def ls(
    ctx: typer.Context,
    *,
    function: Annotated[str, typer.Option("--function", "-f", help="Only of this function.")] = "",
    limit: Limit = 100,
    output: Output = Format.TABLE,
) -> None:
    """List schedules, newest first."""
    with connected(ctx) as client:
        found = client.schedules(function_id=function)
        records = [s.record for s in islice(found, limit + 1 if limit else None)]
    show_all(SCHEDULE, records[:limit] if limit else records, output, empty="None.")
    if limit and len(records) > limit:
        say(f"There are more than {limit}: --limit 0 lists all.")


@app.command()
def get(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Show one schedule."""
    with connected(ctx) as client:
        show(SCHEDULE, client.schedule(id_).refresh(), output)


@app.command()
def create(
    ctx: typer.Context,
    name: NAME,
    cron: Annotated[str, typer.Argument(help=CRON)],
    *,
    payload: Payload = None,
    time_zone: TimeZone = None,
    version: Version = None,
    overlap: Overlap = None,
    misfire: Misfire = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Fire nothing yet.")] = False,
    output: Output = Format.NAME,
) -> None:
    """Have a function invoked at the times that a cron line names."""
    with connected(ctx) as client:
        schedule = client.function(name).schedule(
            cron,
            read_payload(payload),
            time_zone=time_zone or "",
            version=version or 0,
            labels=pairs("--label", label),
            overlap=overlap or "",
            misfire=misfire or "",
            paused=paused,
        )
        show(SCHEDULE, schedule.record, output)


@app.command()
def update(
    ctx: typer.Context,
    id_: ID,
    *,
    cron: Annotated[str | None, typer.Option(help=CRON, show_default=False)] = None,
    payload: Payload = None,
    time_zone: TimeZone = None,
    version: Version = None,
    overlap: Overlap = None,
    misfire: Misfire = None,
    output: Output = Format.TABLE,
) -> None:
    """Change what is named of a schedule, and nothing else."""
    given: dict[str, Any] = {} if payload is None else {"payload": read_payload(payload)}
    with connected(ctx) as client:
        record = client.schedule(id_).update(
            cron=cron,
            time_zone=time_zone,
            version=version,
            overlap=overlap,
            misfire=misfire,
            **given,
        )
    show(SCHEDULE, record, output)


@app.command()
def pause(ctx: typer.Context, id_: ID) -> None:
    """Fire nothing until it is resumed; what is missed meanwhile never fires."""
    with connected(ctx) as client:
        client.schedule(id_).pause()
    say(f"{id_} is paused: `faas schedules resume {id_}` lets it fire again.")


@app.command()
def resume(ctx: typer.Context, id_: ID) -> None:
    """Fire again."""
    with connected(ctx) as client:
        record = client.schedule(id_).resume()
    say(f"{id_} fires next at {record.next_fire_at.ToJsonString()}.")


@app.command()
def rm(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Schedules: sched-…")],
) -> None:
    """Remove schedules. What they have invoked goes on."""
    with connected(ctx) as client:
        for id_ in ids:
            client.schedule(id_).delete()
            say(f"{id_} is removed.")
