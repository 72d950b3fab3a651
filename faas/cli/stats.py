"""`faas stats`: how many ended how, how long it took them, and what waits."""

from typing import Annotated

import typer

from faas.cli.failures import Failed
from faas.cli.invocations import INVOCATION
from faas.cli.options import seconds_of
from faas.cli.output import Format, Output, as_json, seconds, table, write
from faas.cli.session import connected
from faas.v1.stats_pb2 import Stats


def stats(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Of this function; else of all.", show_default=False),
    ] = "",
    *,
    window: Annotated[str, typer.Option(help="How far back: 15m, 2h, 7d.")] = "1h",
    output: Output = Format.TABLE,
) -> None:
    """Show how many invocations ended how, how long it took them, and what waits now."""
    if output is Format.NAME:
        raise Failed("Counts have no names: -o table, json or yaml.")
    with connected(ctx) as client:
        found = client.stats(name, window_s=seconds_of("--window", window))
    if output is Format.TABLE:
        _show(found)
    else:
        write(as_json(found), output)


def _show(found: Stats) -> None:
    now = f"running {found.running}, queued {found.queued}, delayed {found.delayed}"
    if found.HasField("oldest_queued"):
        now += f"; the oldest has waited for {seconds(found.oldest_queued)}"
    print(f"Now: {now}")
    if not found.counts:
        print("Nothing has ended within the window.")
        return
    print()
    rows = [[count.status, str(count.count)] for count in found.counts]
    table(["STATUS", "COUNT"], rows, INVOCATION.colours)
    print()
    rows = [
        [one.phase, str(one.count), seconds(one.p50), seconds(one.p90), seconds(one.p99)]
        for one in found.latencies
    ]
    table(["PHASE", "COUNT", "P50", "P90", "P99"], rows, {})
