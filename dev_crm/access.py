"""Check the API key and the rate limit before anything else of a request is read."""

import hmac
import time
from collections.abc import Callable

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import ServiceError
from dev_crm.api import TooManyRequests, Unauthorized, error_response


class TokenBucket:
    """An in-memory rate limit: allows a burst of one minute's requests and refills evenly.

    Args:
        requests_per_minute: Size of the bucket, and how many tokens are added per minute.
        clock: Monotonic clock, in seconds.

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
        self._refilled_at = clock()

    def take(self) -> float:
        """Take a token if there is one.

        Returns:
            0 when a token was taken; otherwise the seconds until the next one is available.
        """
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0


class ApiAccess:
    """ASGI middleware that rejects requests under ``prefix`` without the key or over the rate limit.

    It is a middleware rather than a dependency so that it also covers unknown routes and runs before the
    body is read. Requests with a wrong key do not use up the key's rate.

    Args:
        app: The application to protect.
        prefix: Path that is protected, with everything below it.
        api_key: The one accepted bearer key.
        bucket: The key's rate limit.
    """

    def __init__(self, app: ASGIApp, *, prefix: str, api_key: SecretStr, bucket: TokenBucket) -> None:
        self._app = app
        self._prefix = prefix
        self._key = api_key.get_secret_value().encode()
        self._bucket = bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with 401 or 429."""
        refusal = self._find_refusal(scope) if scope["type"] == "http" and self._protects(scope) else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(refusal)(scope, receive, send)

    def _protects(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path == self._prefix or path.startswith(self._prefix + "/")

    def _find_refusal(self, scope: Scope) -> ServiceError | None:
        if not self._has_key(scope):
            return Unauthorized("Send the API key as 'Authorization: Bearer <key>'.")
        wait = self._bucket.take()
        if wait:
            return TooManyRequests("Too many requests with this key.", retry_after=wait)
        return None

    def _has_key(self, scope: Scope) -> bool:
        header: bytes = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._key)
