"""JSON values as a checkpoint can hold them."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any, Final

from pydantic import JsonValue

from core.texts import make_storable

# A checkpoint holds whole numbers of 64 bits; their absolute value is below this.
INTEGER_LIMIT: Final = 2**63
MAX_SIZE: Final = 1_000_000


def iter_levels(value: JsonValue) -> Iterator[list[JsonValue]]:
    """Yield the values of a JSON document level by level, starting with the document itself.

    The walk is iterative, so that a document of any depth can be measured.
    """
    level: list[JsonValue] = [value]
    while level:
        yield level
        level = [child for parent in level for child in _children(parent)]


def check_size(value: JsonValue) -> JsonValue:
    """Return the value, if a checkpoint can hold it and it is no larger than a workflow needs.

    Raises:
        ValueError: It is not.
    """
    size = 0
    for level in iter_levels(value):
        size += sum(len(one) if isinstance(one, str) else 1 for one in level)
        if size > MAX_SIZE:
            raise ValueError(f"holds more than {MAX_SIZE:,} characters and values")
        if any(isinstance(one, int) and abs(one) >= INTEGER_LIMIT for one in level):
            raise ValueError("holds an integer of more than 64 bits: send it as text")
    return value


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
