"""What people see of a start: a spinner at a terminal, plain lines anywhere else."""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

Update = Callable[[str], None]


class _Console(Console):
    """One whose reader may go: the stack goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Screen:
    """Tells what happens; and writes it to a log, once there is one."""

    def __init__(self, console: Console | None = None) -> None:
        """Tell it on `console`, stdout by default."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that knows no ✓
        self._console = console or _Console(highlight=False, soft_wrap=True)
        self._log: Path | None = None

    def log_to(self, file: Path) -> None:
        """Write everything that is said to `file` as well."""
        self._log = file

    def say(self, text: str, style: str = "") -> None:
        """One line, or several."""
        self._print(f"[{style}]{escape(text)}[/]" if style else escape(text))
        self._write(text)

    def warn(self, text: str) -> None:
        """Something that nobody should miss."""
        self.say(f"! {text}", style="bold yellow")

    def fail(self, text: str) -> None:
        """Why it does not go on."""
        self.say(text, style="bold red")

    @contextmanager
    def step(self, text: str) -> Iterator[Update]:
        """Something that takes a while; call what this gives with how far it is."""
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(escape(text)) as status:
                yield lambda more: status.update(escape(f"{text}: {more}"))
            self._print(f"[green]✓[/] {escape(text)} [dim]{_since(began)}[/]")
            self._write(f"{text}: {_since(began)}")
        else:
            self.say(f"{text} …")
            yield lambda more: self.say(f"  {more}")

    def _print(self, markup: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed
            self._console.print(markup)

    def _write(self, text: str) -> None:
        if self._log is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError), self._log.open("a") as file:  # a full disk
            file.write(f"{now} {text}\n")


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
