"""Limit the requests of a tenant, and state the limit in every response."""

import math
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.principal import Identity
from service.auth.rate_limits import RateLimitStatus, build_refusal
from service.errors import error_response
from service.lifespan import Service

# Names the policy in the headers.
POLICY = '"tenant"'


class RateLimiting:
    """ASGI middleware behind authentication, because a rate limit is a tenant's.

    The headers are those of the IETF draft "RateLimit header fields for HTTP"
    (httpapi-ratelimit-headers-10).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the headers, or answer it with 429."""
        standing = await _count_request(scope) if scope["type"] in {"http", "websocket"} else None
        if standing is None:
            await self._app(scope, receive, send)
            return
        # A route that counts more requests than this one replaces it.
        scope["state"]["rate"] = standing

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                status: RateLimitStatus = scope["state"]["rate"]
                headers["RateLimit-Policy"] = f"{POLICY};q={status.limit};w={status.window}"
                headers["RateLimit"] = f"{POLICY};r={status.remaining};t={math.ceil(status.reset)}"
            await send(message)

        if standing.allowed:
            await self._app(scope, receive, send_with_headers)
        else:
            await error_response(build_refusal(standing))(scope, receive, send_with_headers)


async def _count_request(scope: Scope) -> RateLimitStatus | None:
    service: Service = scope["app"].state.service
    identity: Identity = scope["state"]["identity"]
    if service.rates is None or not identity.tenant:
        return None
    return await service.rates.count_request(identity.tenant)
