"""One call to the memory service: its time limit, its attempts, and what its status means."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential_jitter

from core.errors import MemoryUnavailable, ServiceError
from core.settings import MemorySettings
from memory.grpc_calls import CircuitBreaker
from memory.grpc_transport import REACHABILITY, from_status

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0
HEALTH_SECONDS: Final = 1.0
# The library's stub has no types.
HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"


class Calls:
    """Makes calls that may be repeated, as all of the memory's may.

    Args:
        channel: Not owned.
        service: The service whose health is asked after a rest.
        settings: Attempts and the rest.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
    """

    def __init__(
        self, channel: aio.Channel, service: str, settings: MemorySettings, *, first_pause: float
    ) -> None:
        self._health = channel.unary_unary(
            HEALTH_METHOD,
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        self._service = service
        self._attempts = settings.grpc_max_attempts
        self._wait = wait_exponential_jitter(first_pause, max=LONGEST_PAUSE_SECONDS, jitter=first_pause)
        self._circuit = CircuitBreaker(settings.grpc_rest_seconds, _is_away)

    async def make(self, attempt: Callable[[float], Awaitable[T]], *, seconds: float) -> T:
        """Make a call, again where the memory was not reached.

        Args:
            attempt: One attempt, given the seconds it may take.
            seconds: What all attempts and the pauses between them may take.

        Raises:
            MemoryUnavailable: It was not reached, did not answer in time, failed, or rests.
            MemoryRefused: In the memory's words.
            NotFound: In the memory's words.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self._circuit.call() as trial:
            if trial:
                # Cheap, and it says at once what a call may find out at its time limit.
                await self.check(min(HEALTH_SECONDS, seconds))
            return await self._attempt_until(attempt, deadline)

    async def check(self, seconds: float = HEALTH_SECONDS) -> None:
        """Ask the service's health; one without the health service is taken to be well.

        Raises:
            MemoryUnavailable: It does not serve, or cannot be reached.
        """
        request = health_pb2.HealthCheckRequest(service=self._service)
        try:
            serves = (await self._health(request, timeout=seconds)).status
        except aio.AioRpcError as error:
            if error.code() is StatusCode.UNIMPLEMENTED:
                return
            if error.code() is not StatusCode.NOT_FOUND:
                raise typed(error) from error
            serves = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if serves != health_pb2.HealthCheckResponse.SERVING:
            raise MemoryUnavailable(
                "the memory says that it does not serve now",
                details={"grpc_status": StatusCode.UNAVAILABLE.name},
            )

    async def _attempt_until(self, attempt: Callable[[float], Awaitable[T]], deadline: float) -> T:
        clock = asyncio.get_running_loop().time

        async def once() -> T:
            try:
                return await attempt(max(deadline - clock(), 0.001))
            except aio.AioRpcError as error:
                raise typed(error) from error

        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._attempts) | stop_before_delay(deadline - clock()),
            wait=self._wait,
            retry=retry_if_exception(_was_not_reached),
            reraise=True,
        )
        return await attempts(once)


def typed(error: aio.AioRpcError) -> ServiceError:
    """The error of the one tree that a status means."""
    return from_status(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


def _was_not_reached(error: BaseException) -> bool:
    return isinstance(error, MemoryUnavailable) and _status(error) == StatusCode.UNAVAILABLE.name


def _is_away(error: MemoryUnavailable) -> bool:
    return _status(error) in {status.name for status in REACHABILITY}


def _status(error: MemoryUnavailable) -> object:
    return error.details.get("grpc_status")
