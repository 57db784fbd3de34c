"""Give every request an id, in its response and in each of its log lines."""

import re
import time
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from core.logging import get_logger
from service.middleware.telemetry import find_route_template

log = get_logger(__name__)

HEADER = "X-Request-Id"
_ACCEPTED = re.compile(r"[\w.:@+/=-]{1,128}")


class RequestId:
    """ASGI middleware: accept the caller's id or make one, bind it to the logs, and log the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else str(uuid4())
        status: int | None = None

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                log.info(
                    "request",
                    method=scope["method"],
                    # The route's template: paths hold ids that callers choose.
                    path=find_route_template(scope),
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 1),
                )
