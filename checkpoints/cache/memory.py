"""Results in the process's memory."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

MOST_BYTES = 16 * 2**20
# Of an entry, beside its key and value.
_ENTRY_BYTES = 300


class _Kept(NamedTuple):
    value: bytes
    until: float


class MemoryStore:
    """Bounded: what was kept first goes first, which is also what expires first.

    Args:
        most_bytes: Of all entries, about.
        clock: Seconds that only grow.
    """

    faults: tuple[type[Exception], ...] = ()

    def __init__(self, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See :class:`~checkpoints.cache.store.Store`."""
        now = self._clock()
        found = {key: self._kept[key] for key in keys if key in self._kept}
        return {key: kept.value for key, kept in found.items() if now < kept.until}

    async def write(self, values: Mapping[str, bytes], seconds: int) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        now = self._clock()
        for key, value in values.items():
            self._drop(key)
            self._kept[key] = _Kept(value, now + seconds)
            self._bytes += _size(key, value)
        while self._kept and (self._bytes > self._most_bytes or self._oldest().until <= now):
            self._drop(next(iter(self._kept)))

    async def clear(self, prefix: str) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        for key in [key for key in self._kept if key.startswith(prefix)]:
            self._drop(key)

    def _oldest(self) -> _Kept:
        return next(iter(self._kept.values()))

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= _size(key, kept.value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_BYTES
