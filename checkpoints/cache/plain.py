"""What a step wrote, as bytes that hold plain JSON and nothing else.

LangGraph's serialiser names types that reading imports and builds. A cache may be written by others (a shared
Redis), so what is read from it is only ever texts, numbers, lists and objects.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

# Channel and value, as LangGraph keeps what a task wrote.
Writes: TypeAlias = Sequence[tuple[str, Any]]


class NotPlainError(ValueError):
    """Raise when a value would not come back from JSON as it is."""


def packed(key: str, writes: Writes) -> bytes:
    """The writes, with the key they belong to.

    Raises:
        NotPlainError: They hold a message, a ``Send``, a tuple, or anything else JSON does not give back.
    """
    plain = [[channel, value] for channel, value in writes]
    try:
        text = json.dumps([key, plain], allow_nan=False)
        same = json.loads(text) == [key, plain]
    except (TypeError, ValueError, RecursionError) as error:
        raise NotPlainError(str(error)) from error
    if not same:
        raise NotPlainError("it would come back from JSON as something else")
    return text.encode()


def unpacked(key: str, data: bytes) -> Writes:
    """The writes that :func:`packed` made the bytes of.

    Raises:
        NotPlainError: The bytes are something else, or belong to another key.
    """
    try:
        match json.loads(data):
            case [str(of), list(pairs)] if of == key:
                return [_write(pair) for pair in pairs]
    except (ValueError, RecursionError) as error:
        raise NotPlainError(str(error)) from error
    raise NotPlainError("it is not what this key was given")


def _write(pair: object) -> tuple[str, Any]:
    match pair:
        case [str(channel), value]:
            return channel, value
    raise NotPlainError("it is no list of writes")
