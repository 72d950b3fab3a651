"""What ListFunctions filters and orders by (docs/reference/filters.md)."""

from typing import Any

from services import filters
from services.errors import InvalidFilter
from services.filters import Condition, Fields
from services.functions.tables import FunctionRow, VersionRow

_MOMENTS: dict[str, Any] = {
    "created_at": FunctionRow.created_at,
    "updated_at": FunctionRow.updated_at,
}
FIELDS = Fields(
    texts={
        "name": FunctionRow.name,
        "description": FunctionRow.description,
        "runtime": VersionRow.runtime,
    },
    numbers={"version": FunctionRow.version},
    moments=_MOMENTS,
    labels=FunctionRow.labels,
)
ORDERS: dict[str, Any] = {**_MOMENTS, "name": FunctionRow.name}


def parse_filter(text: str) -> Condition | None:
    """The condition in `text`; None where it is empty. Raises InvalidFilter."""
    return filters.parse_filter(text, FIELDS)


def parse_order(text: str) -> tuple[str, bool]:
    """The field to order by, and whether downwards. Raises InvalidFilter."""
    if not text.strip():
        return "created_at", True
    field, *direction = text.split()
    if field not in ORDERS or direction not in ([], ["desc"], ["asc"]):
        fields = ", ".join(ORDERS)
        raise InvalidFilter.of("order_by", f"must be one of {fields}, and perhaps ' desc'")
    return field, direction == ["desc"]
