"""What Postgres cannot keep as text is refused at the door."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.texts import is_storable


def require_storable(value: Any) -> Any:
    """The value, when each text in it can be stored.

    Raises:
        ValueError: One holds NUL, or half of a surrogate pair, which ``jsonb`` takes neither of.
    """
    for text in _texts(value):
        if not is_storable(text):
            raise ValueError("text must hold neither NUL nor half of a surrogate pair")
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
