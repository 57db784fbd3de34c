"""``GET /metrics``: the instruments in a format that Prometheus reads."""

from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from service.routes.dependencies import OpenService


def metrics_router() -> APIRouter:
    """Build the router."""
    router = APIRouter(tags=["service"])

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(service: OpenService, accept: Annotated[str, Header()] = "*/*") -> Response:
        """Return counters, gauges and histograms in Prometheus' text format or OpenMetrics."""
        encode, content_type = choose_encoder(accept)
        return Response(encode(service.metrics.registry), media_type=content_type)

    return router
