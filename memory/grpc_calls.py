"""Calls to the memory service: time limits, retries, and a circuit breaker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential_jitter

from core import deadline
from core.circuit import CircuitBreaker
from core.errors import MemoryUnavailable, ServiceError
from core.settings import MemorySettings
from memory.grpc_transport import UNREACHABLE_STATUSES, from_status

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 1.0
HEALTH_CHECK_SECONDS: Final = 1.0
# The library's stub is not typed.
HEALTH_CHECK_METHOD: Final = "/grpc.health.v1.Health/Check"
# Failed calls in a row that open the circuit. Each of them may have used up its time limit.
MAX_FAILURES: Final = 2


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
        self._circuit = CircuitBreaker(
            "memory",
            settings.grpc_rest_seconds,
            is_failure=_is_unreachable,
            refuse=_refuse_call,
            max_failures=MAX_FAILURES,
        )

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
        seconds = deadline.limit(seconds)
        ends_at = asyncio.get_running_loop().time() + seconds
        with self._circuit.call() as is_trial:
            if is_trial:
                # The health check is cheap, and fails sooner than a call would.
                await self.check_health(min(HEALTH_CHECK_SECONDS, seconds))
            return await self._attempt_until(attempt, ends_at)

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

    async def _attempt_until(self, attempt: Callable[[float], Awaitable[T]], ends_at: float) -> T:
        clock = asyncio.get_running_loop().time

        async def attempt_once() -> T:
            try:
                return await attempt(max(ends_at - clock(), 0.001))
            except aio.AioRpcError as error:
                raise _to_service_error(error) from error

        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._attempts) | stop_before_delay(ends_at - clock()),
            wait=self._wait,
            retry=retry_if_exception(_was_not_reached),
            reraise=True,
        )
        return await attempts(attempt_once)


def _to_service_error(error: aio.AioRpcError) -> ServiceError:
    return from_status(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


def _was_not_reached(error: BaseException) -> bool:
    return isinstance(error, MemoryUnavailable) and _status_of(error) == StatusCode.UNAVAILABLE.name


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, MemoryUnavailable) and _status_of(error) in {
        status.name for status in UNREACHABLE_STATUSES
    }


def _refuse_call(seconds: float) -> MemoryUnavailable:
    return MemoryUnavailable(
        "the memory is unavailable and is not called for the moment", retry_after=seconds
    )


def _status_of(error: MemoryUnavailable) -> object:
    return error.details.get("grpc_status")
