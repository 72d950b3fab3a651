"""How commands show things: for people as tables, for programs as JSON, YAML or names.

What programs read goes to standard output and is the API's own JSON. Colours, and
anything that moves, are for terminals alone; NO_COLOR is heeded.
"""

import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Annotated, Any, Generic, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from faas.cli import yaml

Item = TypeVar("Item", bound=Message)


class Format(enum.StrEnum):
    """What an answer is written as."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[
    Format, typer.Option("--output", "-o", help="table, json, yaml, or name: ids or names alone.")
]

_WORDS = {True: "yes", False: "no", None: "null"}
_MAPS = ("payload", "result", "env", "labels", "differences")


@dataclass(frozen=True)
class Noun(Generic[Item]):
    """How one kind of thing is shown."""

    name: Callable[[Item], str]
    """What `-o name` prints."""
    columns: Mapping[str, Callable[[Item], object]]
    """Of a table."""
    colours: Mapping[str, str]
    """Of cells, by their text."""


def show_all(noun: Noun[Item], items: Iterable[Item], output: Format, *, empty: str = "") -> None:
    """Several things; `empty` is said to people where there are none."""
    found = list(items)
    if output is Format.NAME:
        for item in found:
            print(noun.name(item))
    elif output is Format.TABLE:
        rows = [[_cell(of(item)) for of in noun.columns.values()] for item in found]
        if rows:
            table(list(noun.columns), rows, noun.colours)
        elif empty:
            print(empty, file=sys.stderr)
    else:
        write([as_json(item) for item in found], output)


def show(noun: Noun[Item], item: Item, output: Format) -> None:
    """One thing."""
    if output is Format.NAME:
        print(noun.name(item))
    elif output is Format.TABLE:
        fields(as_json(item, defaults=False), noun.colours)
    else:
        write(as_json(item), output)


def as_json(message: Message, *, defaults: bool = True) -> dict[str, Any]:
    """A message as the HTTP API has it."""
    found: dict[str, Any] = json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=defaults,
    )
    return {
        name: _settled(value) if name in _MAPS or isinstance(value, float) else value
        for name, value in found.items()
    }


def write_json(value: Any) -> None:
    """A JSON value: in lines for people, in one line for pipes."""
    text = json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    print(text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], colours: Mapping[str, str]) -> None:
    """Rows under titles."""
    widths = [max(len(r[n]) for r in (titles, *rows)) for n in range(len(titles))]
    print(_styled("  ".join(map(str.ljust, titles, widths)).rstrip(), "1"))
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        print(
            "  ".join(
                _styled(padded, colours.get(text, ""))
                for padded, text in zip(cells, row, strict=True)
            ).rstrip()
        )


def fields(values: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """One thing's fields, one a line; what is nested as YAML below."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, dict | list):
            print(_styled(f"{name}:", "1"))
            for line in yaml.dumps(value).splitlines():
                print(f"  {printable(line)}")
        elif isinstance(value, str) and "\n" in value:
            print(_styled(f"{name}:", "1"))
            for line in value.splitlines():
                print(f"  {printable(line)}")
        else:
            text = _cell(value)
            print(f"{_styled(name.ljust(width), '1')}  {_styled(text, colours.get(text, ''))}")


def printable(text: str) -> str:
    """Text of somebody else's, which must not command a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _cell(value: object) -> str:
    if isinstance(value, Timestamp):
        if not value.seconds:
            return "-"
        return value.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Duration):
        return seconds(value)
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value)) or "-"


def seconds(duration: Duration) -> str:
    """A duration as people read it."""
    return f"{duration.ToNanoseconds() / 1e9:.3f}".rstrip("0").rstrip(".") + "s"


def size(count: int) -> str:
    """Bytes as people read them."""
    amount, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, bigger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _settled(value: Any) -> Any:
    """Keys in order, which a message's map has not, and 3 as 3, which protobuf makes 3.0."""
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return value


def write(value: Any, output: Format) -> None:
    """A value as JSON or YAML."""
    if output is Format.YAML:
        print(yaml.dumps(value), end="")
    else:
        print(json.dumps(value, ensure_ascii=False, indent=2))


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and colourful() else text


def colourful() -> bool:
    """Whether standard output is a terminal that wants colours."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show people at a terminal that something goes on; nobody else."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
