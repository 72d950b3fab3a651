"""Filters of lists (AIP-160), as conditions in SQL with bound values.

What may be filtered by is each list's own: its `Fields`. The language is in
docs/reference/filters.md. No condition is ever null, so that NOT means what it says.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import lark
from sqlalchemy import ColumnElement, Text, and_, cast, func, literal, not_, or_
from sqlalchemy.dialects.postgresql import JSONB

from services import ids
from services.errors import InvalidFilter

Condition = ColumnElement[bool]
Narrowing = Callable[[str, Any], Condition | None]
"""By comparator and value, a condition that the comparison implies: for an index."""

# OR binds tighter than AND, as AIP-160 has it; no operator at all is AND.
_GRAMMAR = r"""
?start: conjunction
?conjunction: disjunction ("AND"? disjunction)*       -> all_of
?disjunction: term ("OR" term)*                       -> any_of
?term: ("NOT" | "-") simple                           -> negation
     | simple
?simple: "(" conjunction ")"
       | restriction
restriction: field COMPARATOR value
field: NAME ("." (NAME | WORD | STRING))*
value: STRING | WORD | NAME | STAR
COMPARATOR: "<=" | ">=" | "!=" | "=" | "<" | ">" | ":"
NAME: /(?!(?:AND|OR|NOT)\b)[A-Za-z_][A-Za-z0-9_-]*/
WORD: /-?[0-9][A-Za-z0-9_.:+-]*/
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/
STAR: "*"
%ignore /\s+/
"""
_PARSER = lark.Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)
_STRINGS = re.compile(r"""("|')(?:(?!\1)[^\\]|\\.)*\1""")
MAX_PARENTHESES = 32

_COMPARE: dict[str, Callable[[Any, Any], Condition]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


@dataclass(frozen=True)
class Choices:
    """A column that has one of a few values, each with its name in the API."""

    column: Any
    stored: Mapping[str, str]


@dataclass(frozen=True)
class Fields:
    """What a list can be filtered by: columns by name, `error.code` being a name too."""

    texts: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    moments: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Choices] = field(default_factory=dict)
    identifiers: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """Columns of UUIDs, with the prefix that they are shown with."""
    labels: Any = None
    """A column of jsonb: an object of strings."""
    narrow: Mapping[str, Narrowing] = field(default_factory=dict)
    """Of some fields what their comparisons imply, such as the range of an index."""


def parse_filter(text: str, fields: Fields) -> Condition | None:
    """The condition in `text`; None where it is empty. Raises InvalidFilter."""
    if not text.strip():
        return None
    if _STRINGS.sub("", text).count("(") > MAX_PARENTHESES:
        raise InvalidFilter.of("filter", f"has more than {MAX_PARENTHESES} parentheses")
    try:
        tree = _PARSER.parse(text)
        condition: Condition = _Compiler(fields).transform(tree)
    except lark.exceptions.VisitError as error:
        if isinstance(error.orig_exc, InvalidFilter):
            raise error.orig_exc from error
        raise
    except lark.exceptions.UnexpectedInput as error:
        # lark counts from 1, and knows no place for an end that came too early.
        ended = isinstance(error, lark.UnexpectedToken) and error.token.type == "$END"
        where = "its end" if ended else f"character {(error.pos_in_stream or 0) + 1}"
        raise InvalidFilter.of("filter", f"does not parse at {where}") from error
    return condition


class _Compiler(lark.Transformer[lark.Token, Any]):
    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def any_of(self, terms: list[Any]) -> Condition:
        return or_(*terms)

    def all_of(self, terms: list[Any]) -> Condition:
        return and_(*terms)

    def negation(self, terms: list[Any]) -> Condition:
        negated: Condition = not_(terms[0])
        return negated

    def field(self, names: list[lark.Token]) -> list[str]:
        return [_unquoted(name) for name in names]

    def value(self, tokens: list[lark.Token]) -> str:
        return _unquoted(tokens[0])

    def restriction(self, parts: list[Any]) -> Condition:
        path, comparator, value = parts
        name, comparator = ".".join(path), str(comparator)
        condition = self._restriction(path, name, comparator, value)
        narrowing = self._fields.narrow.get(path[0] if path[0] == "labels" else name)
        implied = narrowing(comparator, value) if narrowing else None
        return condition if implied is None else and_(implied, condition)

    def _restriction(self, path: list[str], name: str, comparator: str, value: str) -> Condition:
        fields = self._fields
        if fields.labels is not None and path[0] == "labels" and len(path) == 2:
            return _label(fields.labels, path[1], comparator, value)
        if name in fields.texts:
            return _text(fields.texts[name], comparator, value)
        if name in fields.choices:
            return _choice(name, fields.choices[name], comparator, value)
        if name in fields.identifiers:
            return _identifier(name, *fields.identifiers[name], comparator, value)
        if name in fields.numbers or name in fields.moments:
            if comparator == ":":
                raise InvalidFilter.of("filter", f"':' (has) does not go with {name}")
            column = fields.numbers.get(name, fields.moments.get(name))
            typed = integer(name, value) if name in fields.numbers else moment(name, value)
            return _COMPARE[comparator](column, typed)
        raise InvalidFilter.of("filter", f"there is no field {name!r} to filter by")


def integer(name: str, value: str) -> int:
    """A value in a filter as a number. Raises InvalidFilter."""
    try:
        number = int(value)
    except ValueError as error:
        raise InvalidFilter.of("filter", f"{name} is compared with an integer") from error
    if abs(number) >= 2**31:
        raise InvalidFilter.of("filter", f"{name} is compared with an integer below 2^31")
    return number


def moment(name: str, value: str) -> datetime:
    """A value in a filter as a moment. Raises InvalidFilter."""
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError(value)
        return found.astimezone(UTC)  # where it may be of no year that there is
    except (ValueError, OverflowError) as error:
        kind = "a moment such as '2026-01-31T12:00:00Z'"
        raise InvalidFilter.of("filter", f"{name} is compared with {kind}") from error


def _text(column: Any, comparator: str, value: str) -> Condition:
    if comparator == ":":
        has: Condition = column.contains(value, autoescape=True)
        return has
    return _COMPARE[comparator](column, value)


def _choice(name: str, choices: Choices, comparator: str, value: str) -> Condition:
    column = choices.column
    present: Condition = column.is_not(None)
    if comparator == ":" and value == "*":
        return present
    if comparator not in ("=", "!="):
        raise InvalidFilter.of("filter", f"{comparator!r} does not go with {name}")
    stored = choices.stored.get(value.upper())
    if stored is None:
        known = ", ".join(choices.stored)
        raise InvalidFilter.of("filter", f"{name} is one of {known}")
    same = and_(present, column == stored)
    return same if comparator == "=" else not_(same)


def _identifier(name: str, column: Any, prefix: str, comparator: str, value: str) -> Condition:
    if comparator not in ("=", "!="):
        raise InvalidFilter.of("filter", f"{comparator!r} does not go with {name}")
    uuid: UUID | None = ids.parse(prefix, value)
    if uuid is None:
        raise InvalidFilter.of("filter", f"{name} is compared with '{prefix}' and a UUID")
    return _COMPARE[comparator](column, uuid)


def _label(labels: Any, key: str, comparator: str, value: str) -> Condition:
    """NOT must find what has no such label, so this is never null."""
    same: Condition = labels.op("@>", is_comparison=True)(_json({key: value}))
    if comparator == ":" and value == "*":
        present: Condition = labels.has_key(key)
        return present
    if comparator in ("=", ":"):
        return same
    if comparator == "!=":
        return not_(same)
    compared: Condition = _COMPARE[comparator](labels[key].astext, value)
    found: Condition = func.coalesce(compared, False)
    return found


def _unquoted(token: lark.Token) -> str:
    text = str(token)
    if text[:1] not in "\"'":
        return text
    inner = text[1:-1]
    result, escaped = "", False
    for character in inner:
        if character == "\\" and not escaped:
            escaped = True
            continue
        result += character
        escaped = False
    if "\x00" in result:
        raise InvalidFilter.of("filter", "cannot hold NUL")
    return result


def _json(document: Any) -> Any:
    # As text, so that it is the same whoever binds it: SQLAlchemy or the driver alone.
    return cast(literal(json.dumps(document), Text), JSONB)
