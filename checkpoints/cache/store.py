"""What a place to keep results must be able to do."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Store(Protocol):
    """Texts of bytes by key, each for a while.

    Attributes:
        faults: What it raises when it is away or full, beside ``OSError`` and ``TimeoutError``.
    """

    faults: tuple[type[Exception], ...]

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """The values that are there and have not expired."""
        ...

    async def write(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Keep the values for so long; what stood there is replaced."""
        ...

    async def clear(self, prefix: str) -> None:
        """Drop what has a key that begins so."""
        ...
