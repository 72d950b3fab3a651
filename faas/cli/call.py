"""`faas call`: raw bytes in, raw bytes out."""

import mimetypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from faas.cli.failures import ExitCode, Failed, say
from faas.cli.files import written_whole
from faas.cli.functions import NAME
from faas.cli.output import printable
from faas.cli.session import connected

BINARY = "application/octet-stream"


def call(
    ctx: typer.Context,
    name: NAME,
    body: Annotated[
        str | None,
        typer.Argument(
            help="Text, @FILE, or - for stdin. Without one: nothing.", show_default=False
        ),
    ] = None,
    *,
    content_type: Annotated[
        str, typer.Option("--content-type", "-t", help="Of the body.", show_default="told by name")
    ] = "",
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the answer to this file.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")] = 960.0,
    version: Annotated[int, typer.Option(min=0, help="Which version; 0: the latest.")] = 0,
) -> None:
    """Call a function with raw bytes, and write the bytes that it answers.

    Numbers keep their digits and files their bytes. Exit code 1: the function failed.
    """
    from faas.errors import NoResult

    data, guessed = _opened(body)
    # Text for a terminal is looked at first; everything else goes by.
    shown = to is None and sys.stdout.isatty()
    with connected(ctx) as client, _target(to) as file:
        try:
            answer = client.function(name).call(
                data,
                content_type=content_type or guessed,
                timeout_s=timeout,
                version=version,
                to=None if shown else file,
            )
        except NoResult as failure:
            code = ExitCode.FUNCTION_FAILED
            if failure.reason == "STILL_RUNNING":
                code = ExitCode.WAITED
            invocation = failure.metadata.get("invocation_id", "")
            hint = f"\n`faas invocations get {invocation}` has the record." if invocation else ""
            raise Failed(f"{failure}{hint}", code) from failure
    if to is not None:
        say(f"{answer.size_bytes} bytes of {answer.content_type or BINARY} are in {to}.")
    elif shown:
        try:
            print("\n".join(map(printable, answer.data.decode().split("\n"))))
        except UnicodeDecodeError:
            raise Failed(
                f"It is {answer.content_type}: write it to a file, with --to FILE."
            ) from None


@contextmanager
def _target(to: Path | None) -> Iterator[IO[bytes]]:
    """Where the answer is written to as it comes."""
    if to is not None:
        with written_whole(to) as file:
            yield file
    else:
        yield sys.stdout.buffer
        sys.stdout.flush()


def _opened(body: str | None) -> tuple[bytes | IO[bytes], str]:
    """The bytes or what has them, and of what type they seem to be."""
    if body is None:
        return b"", ""
    if body == "-":
        return sys.stdin.buffer, BINARY
    if not body.startswith("@"):
        looks_like_json = body.lstrip()[:1] in ("{", "[", '"')
        return body.encode(), "application/json" if looks_like_json else "text/plain"
    path = Path(body[1:])
    try:
        return path.open("rb"), mimetypes.guess_type(path.name)[0] or BINARY
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.") from error
