"""A bounded cache of the vectors of the texts that were embedded last."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

# A vector of 384 dimensions takes 12 KB as a list of numbers.
_SIZE: Final = 512


class VectorCache:
    """Vectors by the model, the form in which it takes a text, and a digest of the text.

    Routing, memory and the knowledge base ask about the same message, so they share one cache. It keeps
    digests and no texts, because the texts are customers'.

    Args:
        size: Number of vectors; those that were not used for the longest time are dropped.
    """

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._vectors: OrderedDict[bytes, Sequence[float]] = OrderedDict()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def lock(self, form: str, text: str) -> asyncio.Lock:
        """Return the lock of whoever embeds a text in a form, so that others wait for the vector."""
        return self._locks.setdefault(_compute_key(form, text), asyncio.Lock())

    def get(self, form: str, text: str) -> Sequence[float] | None:
        """Return the vector of a text in a form, or ``None``."""
        key = _compute_key(form, text)
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, form: str, text: str, vector: Sequence[float]) -> None:
        """Keep the vector of a text in a form."""
        key = _compute_key(form, text)
        self._vectors[key] = vector
        self._vectors.move_to_end(key)
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


def _compute_key(form: str, text: str) -> bytes:
    return hashlib.blake2b(f"{form}\n{text}".encode(), digest_size=16).digest()
