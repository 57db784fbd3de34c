"""Credentials that were verified a moment ago."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from service.auth.principal import Identity, VerifiedCredential

# Looks at once. A flood of keys that nobody has must leave the pool's connections to the others.
_MOST_LOOKS = 4

Verify: TypeAlias = Callable[[str], Awaitable[VerifiedCredential]]


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    until: float


class VerifiedCache:
    """Remembers what was found good, so that most requests cost a hash and a look into a dict.

    What was refused is not remembered: a key may be made the moment after. Requests with one credential that
    come while it is verified wait for that one look.

    Args:
        seconds: For how long a credential is not looked at again, so also how long a revoked one goes on.
        size: Most credentials kept; the one verified longest ago goes first.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, *, seconds: float, size: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._looks = asyncio.Semaphore(_MOST_LOOKS)
        self._looking: dict[bytes, asyncio.Task[Identity]] = {}

    async def identity(self, credential: str, verify: Verify) -> Identity:
        """Whose a credential is.

        Args:
            credential: A key or a token.
            verify: Asked when it is not remembered; what it raises is raised to everyone who waits.
        """
        # Not the credential itself: a memory dump is to show none.
        name = hashlib.sha256(credential.encode()).digest()
        known = self._known.get(name)
        if known is not None and known.until > self._clock():
            return known.identity
        looking = self._looking.get(name)
        if looking is None:
            looking = self._looking[name] = asyncio.create_task(self._look(name, credential, verify))
            looking.add_done_callback(_retrieved)
        # Who goes away does not take the others' answer along.
        return await asyncio.shield(looking)

    async def _look(self, name: bytes, credential: str, verify: Verify) -> Identity:
        try:
            async with self._looks:
                found = await verify(credential)
        finally:
            del self._looking[name]
        lasts = self._seconds if found.seconds is None else min(self._seconds, found.seconds)
        self._known.pop(name, None)
        while len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[name] = _Known(found.identity, self._clock() + lasts)
        return found.identity


def _retrieved(task: asyncio.Task[Identity]) -> None:
    """Take the fault, which all who waited may have left."""
    if not task.cancelled():
        task.exception()
