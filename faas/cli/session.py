"""What every command that talks to a server has: which one, as whom, for how long."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from faas.client import Client


@dataclass(frozen=True)
class Session:
    """What was said before the command."""

    server: str | None = None
    context: str | None = None
    timeout_s: float = 30.0


@contextmanager
def connected(ctx: typer.Context) -> Iterator["Client"]:
    """A client of the server that was named; it connects with the first call."""
    with connected_as(ctx.ensure_object(Session)) as client:
        yield client


@contextmanager
def connected_as(session: Session) -> Iterator["Client"]:
    """A client of the server that a session says."""
    from faas.client import Client

    with Client(session.server, context=session.context, timeout_s=session.timeout_s) as client:
        yield client
