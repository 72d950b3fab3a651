"""`faas workers`: what runs functions."""

from typing import Annotated

import typer

from faas.cli.failures import Group
from faas.cli.output import Format, Noun, Output, show, show_all
from faas.cli.session import connected
from faas.v1.worker_pb2 import Worker

ID = Annotated[str, typer.Argument(metavar="ID", help="A worker's id: worker-…")]

WORKER = Noun[Worker](
    name=lambda w: w.id,
    columns={
        "ID": lambda w: w.id,
        "HOST": lambda w: w.host,
        "STATE": lambda w: Worker.State.Name(w.state),
        "RUNNING": lambda w: f"{w.running}/{w.concurrency}",
        "RUNTIMES": lambda w: ",".join(runtime.name for runtime in w.runtimes),
        "VERSION": lambda w: w.version,
        "SEEN": lambda w: w.last_seen_at,
    },
    colours={"READY": "32", "DRAINING": "33", "DRAINED": "33", "LOST": "31"},
)

app = typer.Typer(
    name="workers",
    help="Look after the workers, which run functions.",
    cls=Group,
    no_args_is_help=True,
)


@app.command()
def ls(ctx: typer.Context, output: Output = Format.TABLE) -> None:
    """List workers that were seen within the last hour."""
    with connected(ctx) as client:
        show_all(WORKER, client.workers(), output, empty="No worker was seen within the last hour.")


@app.command()
def get(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Show one worker."""
    with connected(ctx) as client:
        show(WORKER, client.worker(id_), output)


@app.command()
def drain(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Let a worker finish what it runs and take nothing new."""
    with connected(ctx) as client:
        show(WORKER, client.drain_worker(id_), output)


@app.command()
def resume(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Let a drained worker take work again."""
    with connected(ctx) as client:
        show(WORKER, client.resume_worker(id_), output)
