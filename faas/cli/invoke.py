"""`faas invoke` and `faas logs`: running functions, and what they print."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from faas.cli.failures import ExitCode, Failed, say
from faas.cli.files import written_whole
from faas.cli.functions import NAME
from faas.cli.options import later, pairs
from faas.cli.output import Format, as_json, busy, printable, show, write_json
from faas.cli.payloads import read_payload
from faas.cli.session import connected
from faas.v1.invocation_pb2 import Invocation, LogLine

if TYPE_CHECKING:
    from faas.client import Client
    from faas.invocations import Invocation as Handle

LOOK_S = 1.0
"""How often it is looked whether a function was invoked again."""
MOST = 200
"""How many are shown of those that came meanwhile."""


def invoke(
    ctx: typer.Context,
    name: NAME,
    payload: Annotated[
        str | None,
        typer.Argument(help="JSON, @FILE, or - for stdin. Without one: null.", show_default=False),
    ] = None,
    *,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Do not wait: print the invocation's id.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show what it prints, as it prints it.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Wait so many seconds at most.", show_default="until it ends"),
    ] = None,
    version: Annotated[int, typer.Option(min=0, help="Which version; 0: the latest.")] = 0,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, to find it by. Can be given again.")
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(help="Not before: in 90s, 15m, 2h, 7d. Implies --async.", show_default=False),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            help="The same id invokes once, however often it is sent.", show_default=False
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write the result to this file.", show_default=False),
    ] = None,
    output: Annotated[
        Format | None,
        typer.Option(
            "--output",
            "-o",
            help="The whole record, as table, json or yaml, or its id as name.",
            show_default="the result",
        ),
    ] = None,
) -> None:
    """Invoke a function and print its result.

    The result is JSON on standard output; what the function printed and why it failed go
    to standard error. Exit code 1: the function failed.
    """
    from faas.cli.invocations import INVOCATION

    if to is not None and (asynchronous or delay):
        raise Failed("--to needs the result, and --async and --delay do not wait for it.")
    data = read_payload(payload)
    with connected(ctx) as client:
        with _once(name, request_id or str(uuid4())) as id_:
            invocation = client.function(name).submit(
                data,
                version=version,
                labels=pairs("--label", label),
                request_id=id_,
                not_before=later("--delay", delay),
            )
        if asynchronous or delay:
            show(INVOCATION, invocation.record, output or Format.NAME)
            return
        try:
            if follow:
                print_lines(invocation.logs(follow=True, timeout_s=timeout))
            with busy(f"{name} runs …"):
                record = invocation.wait(timeout)
        except KeyboardInterrupt:
            say(f"\n{how_to_go_on(invocation.id)}")
            raise
        if to is not None and record.status == Invocation.COMPLETED:
            with written_whole(to) as file:
                size = sum(map(file.write, invocation.read_result()))
            say(f"{size} bytes of {record.result_type} are in {to}.")
        if output is not None:
            show(INVOCATION, record, output)
        _finish(invocation, quiet=output is not None or to is not None)


def logs(
    ctx: typer.Context,
    of: Annotated[
        str,
        typer.Argument(
            metavar="INVOCATION|NAME", help="An invocation's id, or a function: its latest one."
        ),
    ],
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Go on until it has ended; with a name, on with those that come after it.",
        ),
    ] = False,
    times: Annotated[bool, typer.Option("--times", help="With the time of each line.")] = False,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="table: the lines; json: an object a line.")
    ] = Format.TABLE,
) -> None:
    """Print what a function printed."""
    with connected(ctx) as client:
        if of.startswith("inv-"):
            _print_logs(client.invocation(of), output, follow=follow, times=times)
            return
        for invocation in _of_function(client, of, follow=follow):
            say(f"{invocation.id}:")
            _print_logs(invocation, output, follow=follow, times=times)


def _of_function(client: "Client", name: str, *, follow: bool) -> Iterator["Handle"]:
    """The function's latest invocation; to follow, then those after it, in their order."""
    recent = _latest(client, name)
    if not recent and not follow:
        raise Failed(f"{name} has not been invoked yet.", ExitCode.NOT_FOUND)
    if not recent:
        say(f"{name} has not been invoked yet: waiting.")
    yield from recent[:1]
    while follow:
        seen = {invocation.id for invocation in recent}
        recent = _latest(client, name)
        unseen = [invocation for invocation in recent if invocation.id not in seen]
        if len(unseen) == MOST:
            say(f"There were more: `faas invocations ls --function {name}` lists them.")
        yield from reversed(unseen)
        time.sleep(LOOK_S)


def _latest(client: "Client", name: str) -> "list[Handle]":
    return list(islice(client.invocations(function_id=name, page_size=MOST), MOST))


def _print_logs(invocation: "Handle", output: Format, *, follow: bool, times: bool) -> None:
    lines = invocation.logs(follow=follow)
    if output is Format.JSON:
        for line in lines:
            write_json(as_json(line))
            sys.stdout.flush()
    else:
        print_lines(lines, times=times, to_stdout=True)


def print_lines(lines: Iterable[LogLine], *, times: bool = False, to_stdout: bool = False) -> None:
    """What a function printed; nothing in it commands the terminal."""
    file = sys.stdout if to_stdout else sys.stderr
    safe = printable if file.isatty() else str
    for line in lines:
        when = f"{line.time.ToJsonString()} " if times else ""
        print(f"{when}{safe(line.text)}", file=file, flush=True)


@contextmanager
def _once(name: str, request_id: str) -> Iterator[str]:
    """Tell somebody who left before the answer how not to have it done twice."""
    from faas.errors import DeadlineExceeded

    try:
        yield request_id
    except (KeyboardInterrupt, DeadlineExceeded):
        say(
            f"\nWhether it was accepted is not known. The same again with"
            f" `--request-id {request_id}` invokes {name} once, whatever became of this."
        )
        raise


def how_to_go_on(invocation_id: str) -> str:
    """What to tell somebody who leaves."""
    return (
        f"{invocation_id} goes on: `faas invocations watch {invocation_id}` looks after it,"
        f" `faas invocations cancel {invocation_id}` ends it."
    )


def _finish(invocation: "Handle", *, quiet: bool) -> None:
    from faas.errors import FunctionFailed
    from faas.invocations import result_of

    try:
        result = result_of(invocation.record) if quiet else invocation.result(0)
    except FunctionFailed as failure:
        text = str(failure)
        say("\n".join(map(printable, text.splitlines())) if sys.stderr.isatty() else text)
        raise typer.Exit(ExitCode.FUNCTION_FAILED) from None
    if not quiet:
        write_json(result)
