"""JSON values as a checkpoint can hold them."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any, Final

from pydantic import JsonValue

from core.texts import make_storable

# A checkpoint holds whole numbers of 64 bits; their absolute value is below this.
INTEGER_LIMIT: Final = 2**63


def iter_levels(value: JsonValue) -> Iterator[list[JsonValue]]:
    """Yield the values of a JSON document level by level, starting with the document itself.

    The walk is iterative, so that a document of any depth can be measured.
    """
    level: list[JsonValue] = [value]
    while level:
        yield level
        level = [child for parent in level for child in _children(parent)]


def to_json(value: Any) -> JsonValue:  # noqa: PLR0911 - one return per type
    """Convert a value to JSON that a checkpoint can hold.

    Types that JSON lacks become text, as do numbers that JSON or a checkpoint would round. Characters that
    ``jsonb`` refuses are removed.
    """
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) < INTEGER_LIMIT else str(value)
        case float():
            return value if isfinite(value) else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [to_json(item) for item in value]
        case dict():
            return {make_storable(str(key)): to_json(item) for key, item in value.items()}
    return make_storable(str(value))


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
