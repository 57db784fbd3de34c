"""Calls to the memory service: time limits, retries, and a circuit breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential_jitter

from core.errors import MemoryUnavailable, ServiceError
from core.logging import get_logger
from core.settings import MemorySettings
from memory.grpc_transport import UNREACHABLE_STATUSES, from_status

log = get_logger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 1.0
HEALTH_CHECK_SECONDS: Final = 1.0
# The library's stub is not typed.
HEALTH_CHECK_METHOD: Final = "/grpc.health.v1.Health/Check"
# Failed calls in a row that open the circuit. Each of them may have used up its time limit.
MAX_FAILURES: Final = 2


class CircuitBreaker:
    """Refuses calls for some seconds after several in a row have failed, then lets one trial call decide.

    See Nygard, Release It! (2007).

    Args:
        rest_seconds: How long calls are refused.
        is_unreachable: Whether an error means that the service was not reached.
        max_failures: Failed calls in a row that open the circuit.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        rest_seconds: float,
        is_unreachable: Callable[[MemoryUnavailable], bool],
        *,
        max_failures: int = MAX_FAILURES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest_seconds = rest_seconds
        self._is_unreachable = is_unreachable
        self._max_failures = max_failures
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._is_trial_running = False

    @contextmanager
    def call(self) -> Iterator[bool]:
        """Wrap a call; the error it raises decides whether the circuit opens or closes.

        Yields:
            Whether this is the trial call.

        Raises:
            MemoryUnavailable: The circuit is open; ``retry_after`` says for how long.
        """
        is_trial = self._failures >= self._max_failures
        if is_trial:
            self._begin_trial()
        try:
            yield is_trial
        except ServiceError as error:
            failed = isinstance(error, MemoryUnavailable) and self._is_unreachable(error)
            self._record(failed=failed, reason=error.message)
            raise
        else:
            self._record(failed=False, reason="")
        finally:
            if is_trial:
                self._is_trial_running = False

    def _begin_trial(self) -> None:
        remaining = self._open_until - self._clock()
        if self._is_trial_running or remaining > 0:
            raise MemoryUnavailable(
                "the memory is unavailable and is not called for the moment",
                retry_after=round(max(remaining, 0.1), 1),
            )
        self._is_trial_running = True

    def _record(self, *, failed: bool, reason: str) -> None:
        was_open = self._failures >= self._max_failures
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= self._max_failures:
            self._open_until = self._clock() + self._rest_seconds
            if not was_open:
                log.warning("memory_unavailable", reason=reason, rest_seconds=self._rest_seconds)
        elif was_open:
            log.info("memory_available")


class Calls:
    """Makes calls, all of which may be repeated.

    Args:
        channel: The channel; its owner closes it.
        service: The service whose health is checked before a trial call.
        settings: Attempts and the circuit breaker's rest.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
    """

    def __init__(
        self, channel: aio.Channel, service: str, settings: MemorySettings, *, first_pause: float
    ) -> None:
        self._health = channel.unary_unary(
            HEALTH_CHECK_METHOD,
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        self._service = service
        self._attempts = settings.grpc_max_attempts
        self._wait = wait_exponential_jitter(first_pause, max=MAX_PAUSE_SECONDS, jitter=first_pause)
        self._circuit = CircuitBreaker(settings.grpc_rest_seconds, _is_unreachable)

    async def make(self, attempt: Callable[[float], Awaitable[T]], *, seconds: float) -> T:
        """Make a call, and repeat it if the memory was not reached.

        Args:
            attempt: Makes one attempt, given the seconds it may take.
            seconds: The time limit of all attempts and the pauses between them.

        Raises:
            MemoryUnavailable: The memory was not reached, did not answer in time or failed, or the circuit is
                open.
            MemoryRefused: The server's refusal.
            NotFound: The server's answer.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self._circuit.call() as is_trial:
            if is_trial:
                # The health check is cheap, and fails sooner than a call would.
                await self.check_health(min(HEALTH_CHECK_SECONDS, seconds))
            return await self._attempt_until(attempt, deadline)

    async def check_health(self, seconds: float = HEALTH_CHECK_SECONDS) -> None:
        """Check the service's health. A server without the health service counts as healthy.

        Raises:
            MemoryUnavailable: The service is not healthy, or cannot be reached.
        """
        request = health_pb2.HealthCheckRequest(service=self._service)
        try:
            status = (await self._health(request, timeout=seconds)).status
        except aio.AioRpcError as error:
            if error.code() is StatusCode.UNIMPLEMENTED:
                return
            if error.code() is not StatusCode.NOT_FOUND:
                raise _to_service_error(error) from error
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if status != health_pb2.HealthCheckResponse.SERVING:
            raise MemoryUnavailable(
                "the memory reports that it is not serving",
                details={"grpc_status": StatusCode.UNAVAILABLE.name},
            )

    async def _attempt_until(self, attempt: Callable[[float], Awaitable[T]], deadline: float) -> T:
        clock = asyncio.get_running_loop().time

        async def attempt_once() -> T:
            try:
                return await attempt(max(deadline - clock(), 0.001))
            except aio.AioRpcError as error:
                raise _to_service_error(error) from error

        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._attempts) | stop_before_delay(deadline - clock()),
            wait=self._wait,
            retry=retry_if_exception(_was_not_reached),
            reraise=True,
        )
        return await attempts(attempt_once)


def _to_service_error(error: aio.AioRpcError) -> ServiceError:
    return from_status(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


def _was_not_reached(error: BaseException) -> bool:
    return isinstance(error, MemoryUnavailable) and _status_of(error) == StatusCode.UNAVAILABLE.name


def _is_unreachable(error: MemoryUnavailable) -> bool:
    return _status_of(error) in {status.name for status in UNREACHABLE_STATUSES}


def _status_of(error: MemoryUnavailable) -> object:
    return error.details.get("grpc_status")
