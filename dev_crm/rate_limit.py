"""A rate limit kept in memory: a token bucket."""

import time
from collections.abc import Callable


class TokenBucket:
    """Lets a minute's worth of requests through at once, and refills evenly.

    Args:
        requests_per_minute: The bucket's size, and what flows in each minute.
        clock: Seconds, monotonic.

    Raises:
        ValueError: The rate is not positive.
    """

    def __init__(self, requests_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute must be at least 1 (got {requests_per_minute!r})")
        self._size = float(requests_per_minute)
        self._per_second = requests_per_minute / 60
        self._clock = clock
        self._tokens = self._size
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token if there is one.

        Returns:
            Seconds until there is one again; 0 when one was taken.
        """
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0
