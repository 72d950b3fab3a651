"""`faas invocations explain`, `replay`, `compare`: what became of one, and how two differ."""

from typing import Annotated

import typer

from faas.cli.failures import ExitCode, Failed, say
from faas.cli.output import Format, Output, as_json, printable, seconds, table, write
from faas.cli.session import connected
from faas.json_values import dumps, to_python
from faas.v1.explanation_pb2 import Explanation
from faas.v1.replay_pb2 import Comparison, Difference

ID = Annotated[str, typer.Argument(metavar="ID", help="An invocation's id: inv-…")]
MAX_VALUE = 60
"""Characters of a value that a line shows."""


def explain(ctx: typer.Context, id_: ID, output: Output = Format.TABLE) -> None:
    """Tell what happened to an invocation and why, step by step, and what it cost."""
    _no_names(output)
    with connected(ctx) as client:
        found = client.invocation(id_).explain()
    if output is Format.TABLE:
        _show_account(found)
    else:
        write(as_json(found), output)


def replay(
    ctx: typer.Context,
    id_: ID,
    *,
    version: Annotated[
        int | None,
        typer.Option(min=0, help="On this version; 0: the latest.", show_default="its own"),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Invoke again with an invocation's payload, and show how the two ends differ.

    Exit code 1: they differ.
    """
    with connected(ctx) as client:
        new = client.invocation(id_).replay(version=version)
        say(f"{new.id} replays {id_}.")
        try:
            new.wait()
        except KeyboardInterrupt:
            say(f"\n{new.id} goes on: `faas invocations compare {new.id}` when it has ended.")
            raise
        if output is Format.NAME:
            print(new.id)
            return
        _show_comparison(new.compare(), output)


def compare(
    ctx: typer.Context,
    id_: ID,
    other: Annotated[
        str, typer.Argument(metavar="OTHER", help="Else: what the first one replays.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show how the ends of two invocations differ. Exit code 1: they do."""
    _no_names(output)
    with connected(ctx) as client:
        found = client.invocation(id_).compare(other)
    _show_comparison(found, output)


def _show_account(found: Explanation) -> None:
    print(printable(found.summary))
    print()
    rows = [
        [
            step.time.ToDatetime().strftime("%H:%M:%S.%f")[:-3],
            f"+{seconds(step.after)}",
            str(step.attempt or "-"),
            printable(f"{step.what} {step.why}".strip()),
        ]
        for step in found.steps
    ]
    table(["TIME", "AFTER", "ATTEMPT", "WHAT"], rows, {})
    print()
    cpu = seconds(found.cpu_time) if found.HasField("cpu_time") else "unknown"
    load = f" (load {seconds(found.load)})" if found.HasField("load") else ""
    print(
        f"waiting {seconds(found.waiting)}, assigned {seconds(found.assigned)},"
        f" startup {seconds(found.startup)}, run {seconds(found.run)}{load},"
        f" report {seconds(found.report)}, CPU {cpu}"
    )


def _show_comparison(found: Comparison, output: Format) -> None:
    other: str = getattr(found, "with")
    if output is not Format.TABLE:
        write(as_json(found), output)
    elif found.equal:
        print(f"It ended as {other} did.")
    else:
        print(f"It ended otherwise than {other}:")
        rows = [[d.path, _value(d, "before"), _value(d, "after")] for d in found.differences]
        table(["PATH", "THERE", "HERE"], rows, {})
        if found.truncated:
            say("There are more differences.")
    if not found.equal:
        raise typer.Exit(ExitCode.FUNCTION_FAILED)


def _value(difference: Difference, side: str) -> str:
    if not difference.HasField(side):  # type: ignore[arg-type]
        return "-"
    text = printable(dumps(to_python(getattr(difference, side))).decode())
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _no_names(output: Format) -> None:
    if output is Format.NAME:
        raise Failed("It has no names to print: -o table, json or yaml.")
