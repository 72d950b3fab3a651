"""Filters (AIP-160) and orders of ListFunctions, as SQL with bound values.

The subset is in docs/reference/filters.md.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import lark
from sqlalchemy import ColumnElement, and_, func, not_, or_

from services.errors import InvalidFilter
from services.functions.tables import FunctionRow, VersionRow

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

_COMPARE: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
_TEXTS: dict[str, Any] = {
    "name": FunctionRow.name,
    "description": FunctionRow.description,
    "runtime": VersionRow.runtime,
}
_NUMBERS: dict[str, Any] = {"version": FunctionRow.version}
_MOMENTS: dict[str, Any] = {
    "created_at": FunctionRow.created_at,
    "updated_at": FunctionRow.updated_at,
}
ORDERS: dict[str, Any] = {**_MOMENTS, "name": FunctionRow.name}


def parse_filter(text: str) -> ColumnElement[bool] | None:
    """The condition in `text`; None where it is empty. Raises InvalidFilter."""
    if not text.strip():
        return None
    if _STRINGS.sub("", text).count("(") > MAX_PARENTHESES:
        raise InvalidFilter.of("filter", f"has more than {MAX_PARENTHESES} parentheses")
    try:
        tree = _PARSER.parse(text)
        condition: ColumnElement[bool] = _Compiler().transform(tree)
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


def parse_order(text: str) -> tuple[str, bool]:
    """The field to order by, and whether downwards. Raises InvalidFilter."""
    if not text.strip():
        return "created_at", True
    field, *direction = text.split()
    if field not in ORDERS or direction not in ([], ["desc"], ["asc"]):
        fields = ", ".join(ORDERS)
        raise InvalidFilter.of("order_by", f"must be one of {fields}, and perhaps ' desc'")
    return field, direction == ["desc"]


class _Compiler(lark.Transformer[lark.Token, Any]):
    def any_of(self, terms: list[Any]) -> ColumnElement[bool]:
        return or_(*terms)

    def all_of(self, terms: list[Any]) -> ColumnElement[bool]:
        return and_(*terms)

    def negation(self, terms: list[Any]) -> ColumnElement[bool]:
        negated: ColumnElement[bool] = not_(terms[0])
        return negated

    def field(self, names: list[lark.Token]) -> list[str]:
        return [_unquoted(name) for name in names]

    def value(self, tokens: list[lark.Token]) -> str:
        return _unquoted(tokens[0])

    def restriction(self, parts: list[Any]) -> ColumnElement[bool]:
        (name, *path), comparator, value = parts
        if name == "labels" and len(path) == 1:
            return _label(path[0], str(comparator), value)
        if name not in {**_TEXTS, **_NUMBERS, **_MOMENTS} or path:
            shown = ".".join((name, *path))
            raise InvalidFilter.of("filter", f"there is no field {shown!r} to filter by")
        if comparator == ":":
            if name not in _TEXTS:
                raise InvalidFilter.of("filter", f"':' (has) does not go with {name}")
            has: ColumnElement[bool] = _TEXTS[name].contains(value, autoescape=True)
            return has
        column, typed = _typed(name, value)
        return _COMPARE[comparator](column, typed)


def _typed(name: str, value: str) -> tuple[Any, Any]:
    """The column and the value in the column's type."""
    try:
        if name in _NUMBERS:
            number = int(value)
            if abs(number) >= 2**31:
                raise ValueError(value)
            return _NUMBERS[name], number
        if name in _MOMENTS:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError(value)
            return _MOMENTS[name], moment
    except ValueError as error:
        kind = "an integer" if name in _NUMBERS else "a moment such as '2026-01-31T12:00:00Z'"
        raise InvalidFilter.of("filter", f"{name} is compared with {kind}") from error
    return _TEXTS[name], value


def _label(key: str, comparator: str, value: str) -> ColumnElement[bool]:
    """A condition that is never null: NOT must find functions without the label."""
    labels: Any = FunctionRow.labels
    same: ColumnElement[bool] = labels.contains({key: value})
    if comparator == ":" and value == "*":
        present: ColumnElement[bool] = labels.has_key(key)
        return present
    if comparator in ("=", ":"):
        return same
    if comparator == "!=":
        return not_(same)
    compared: ColumnElement[bool] = _COMPARE[comparator](labels[key].astext, value)
    found: ColumnElement[bool] = func.coalesce(compared, False)
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
