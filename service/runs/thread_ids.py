"""Thread ids."""

import re
from uuid import uuid4

from core.errors import InvalidRequest

# ASCII, as responses carry it in a header.
_ACCEPTED = re.compile(r"[\w.:@+-]{1,200}", re.ASCII)


def new_thread_id() -> str:
    """An id no one has used."""
    return str(uuid4())


def checked_thread_id(value: str) -> str:
    """The id as it is, when it is one.

    Raises:
        InvalidRequest: It is too long, or has others than ASCII letters, digits and ``_.:@+-``.
    """
    if not _ACCEPTED.fullmatch(value):
        raise InvalidRequest(
            "a thread_id (session_id) has 1 to 200 ASCII letters, digits, or any of _ . : @ + -",
            details={"thread_id": value[:200]},
        )
    return value
