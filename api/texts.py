"""What Postgres cannot keep as text is refused at the door."""

from collections.abc import Iterator, Mapping
from typing import Any


def require_storable(value: Any) -> Any:
    """The value, when each text in it can be stored.

    Raises:
        ValueError: One holds NUL, or half of a surrogate pair, which ``jsonb`` takes neither of.
    """
    for text in _texts(value):
        if "\0" in text or not _encodes(text):
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


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
