"""Count and trace requests by the template of their route."""

import time
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.lifespan import Service
from service.observability.metrics import OTHER
from service.observability.tracing import finish_request_span

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# All paths without a route are one series.
UNMATCHED: Final = "unmatched"
# The status logged for a client that disconnected before its response.
GONE: Final = 499


class Telemetry:
    """ASGI middleware that counts each request when its response has ended, and traces it in a span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Read before the request is served: a mounted app replaces scope["app"].
        service: Service = scope["app"].state.service
        metrics = service.metrics
        status = GONE

        async def send_and_note_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        with service.tracing.trace_request(scope) as span:
            try:
                await self._app(scope, receive, send_and_note_status)
            finally:
                route = find_route_template(scope)
                method = scope["method"] if scope["method"] in METHODS else OTHER
                metrics.requests.labels(route, method, str(status)).inc()
                metrics.request_seconds.labels(route, method).observe(time.perf_counter() - started)
                finish_request_span(span, method=method, route=route, status=status)


def find_route_template(scope: Scope) -> str:
    """Return the path of the route that served a request, with the names of its parameters."""
    path = getattr(scope.get("route"), "path", None)
    return f"{scope.get('root_path', '')}{path}" if path else UNMATCHED
