"""A circuit breaker: what keeps failing is not called for a while, so that nobody waits for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from core.logging import get_logger

log = get_logger(__name__)

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """Refuses calls for some seconds after several in a row have failed, then lets one trial call decide.

    See Nygard, Release It! (2007).

    Args:
        name: What is called, in logs: ``crm``, ``memory``, or a model.
        rest_seconds: How long calls are refused; 0: none ever is.
        is_failure: Whether an exception means that the other side was not reached or did not work. Every
            other exception is an answer, and closes the circuit.
        refuse: Builds the exception of a call that is refused, from the seconds until the next trial.
        max_failures: Failed calls in a row that open the circuit.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        name: str,
        rest_seconds: float,
        *,
        is_failure: Callable[[Exception], bool],
        refuse: Callable[[float], Exception],
        max_failures: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._rest_seconds = rest_seconds
        self._is_failure = is_failure
        self._refuse = refuse
        self._max_failures = max_failures
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._is_trial_running = False

    @property
    def state(self) -> CircuitState:
        """``open``: calls are refused; ``half_open``: the next call, or the one in progress, decides."""
        if self._failures < self._max_failures:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @contextmanager
    def call(self, *, is_essential: bool = False) -> Iterator[bool]:
        """Wrap a call; the exception it raises decides whether the circuit opens or closes.

        Args:
            is_essential: Whether the call is made, as a trial, while the circuit is open too.

        Yields:
            Whether this is the trial call.

        Raises:
            Exception: What ``refuse`` builds: the circuit is open.
        """
        is_trial = self._rest_seconds > 0 and self._failures >= self._max_failures
        has_turn = is_trial and not is_essential
        if has_turn:
            self._begin_trial()
        try:
            yield is_trial
        except Exception as error:
            self._record(failed=self._is_failure(error), reason=str(error))
            raise
        else:
            self._record(failed=False, reason="")
        finally:
            if has_turn:
                self._is_trial_running = False

    def _begin_trial(self) -> None:
        remaining = self._open_until - self._clock()
        if self._is_trial_running or remaining > 0:
            raise self._refuse(round(max(remaining, 0.1), 1))
        self._is_trial_running = True

    def _record(self, *, failed: bool, reason: str) -> None:
        was_open = self._failures >= self._max_failures
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= self._max_failures:
            self._open_until = self._clock() + self._rest_seconds
            if not was_open:
                log.warning(
                    "circuit_opened", circuit=self.name, reason=reason, rest_seconds=self._rest_seconds
                )
        elif was_open:
            log.info("circuit_closed", circuit=self.name)
