"""Leaving a service that is away alone for a while (circuit breaker; Nygard, Release It!, 2007)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from core.errors import MemoryUnavailable, ServiceError
from core.logging import get_logger

log = get_logger(__name__)

# Each of them may have taken its whole time limit.
FAILURES: Final = 2


class Circuit:
    """Refuses calls for some seconds after some in a row have failed; then one is tried, and decides.

    Args:
        rest_seconds: How long it refuses.
        is_away: Whether an error says that the service was not reached; every other one says that it was.
        failures: How many failed calls in a row open it.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        rest_seconds: float,
        is_away: Callable[[MemoryUnavailable], bool],
        *,
        failures: int = FAILURES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest_seconds = rest_seconds
        self._is_away = is_away
        self._allowed = failures
        self._clock = clock
        self._failed = 0
        self._rests_until = 0.0
        self._trying = False

    @contextmanager
    def call(self) -> Iterator[bool]:
        """Around a call; what it raises decides.

        Yields:
            Whether this is the one call that is tried after a rest.

        Raises:
            MemoryUnavailable: The service rests; ``retry_after`` says for how long.
        """
        trial = self._failed >= self._allowed
        if trial:
            self._begin_trial()
        try:
            yield trial
        except ServiceError as error:
            away = isinstance(error, MemoryUnavailable) and self._is_away(error)
            self._end(away=away, reason=error.message)
            raise
        else:
            self._end(away=False, reason="")
        finally:
            if trial:
                self._trying = False

    def _begin_trial(self) -> None:
        left = self._rests_until - self._clock()
        if self._trying or left > 0:
            raise MemoryUnavailable(
                "the memory is away and not asked for the moment", retry_after=round(max(left, 0.1), 1)
            )
        self._trying = True

    def _end(self, *, away: bool, reason: str) -> None:
        was_open = self._failed >= self._allowed
        self._failed = self._failed + 1 if away else 0
        if self._failed >= self._allowed:
            self._rests_until = self._clock() + self._rest_seconds
            if not was_open:
                log.warning("memory_away", reason=reason, rest_seconds=self._rest_seconds)
        elif was_open:
            log.info("memory_back")
