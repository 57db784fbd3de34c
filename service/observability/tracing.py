"""Trace requests and runs over OTLP; :mod:`service.observability.spans` traces what happens inside a run.

Names follow OpenTelemetry's semantic conventions (HTTP, and GenAI for agents, models and tools). Texts of
people and models are never attributes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from core.settings import TracingSettings
from service.observability.spans import RunSpans
from service.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_EXPORT_SECONDS: Final = 5.0
_W3C: Final = TraceContextTextMapPropagator()
_SERVER_ERRORS: Final = 500


class Tracing:
    """Starts the spans of requests and runs.

    Args:
        tracer: Starts spans; None: nothing is traced, at no cost.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    @contextmanager
    def trace_request(self, scope: Scope) -> Iterator[Span | None]:
        """Trace an HTTP request for the block, in the trace of its ``traceparent`` (W3C Trace Context)."""
        if self._tracer is None:
            yield None
            return
        context = _W3C.extract(dict(Headers(scope=scope)))
        method = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"]}
        span = self._tracer.start_span(method, context, SpanKind.SERVER, attributes)
        with use_span(span, end_on_exit=True, record_exception=False):
            yield span

    @contextmanager
    def trace_run(self, graph: str, thread_id: str, prompts: str) -> Iterator["RunTrace"]:
        """Trace a run for the block, below the span of its request; ``prompts`` is their version."""
        if self._tracer is None:
            yield RunTrace(None, None)
            return
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": graph,
            "gen_ai.conversation.id": thread_id,
            "ventros.prompts": prompts,
        }
        span = self._tracer.start_span(f"invoke_agent {graph}", attributes=attributes)
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield RunTrace(span, RunSpans(self._tracer, span))


class RunTrace:
    """A run's span.

    Args:
        span: The span; None: nothing is traced.
        callbacks: Handler for LangChain's callbacks, which traces what happens inside the run.
    """

    def __init__(self, span: Span | None, callbacks: BaseCallbackHandler | None) -> None:
        self._span = span
        self.callbacks = callbacks

    def set_outcome(self, outcome: str, *, failed: bool) -> None:
        """Set the run's outcome, before its block ends."""
        if self._span is None:
            return
        self._span.set_attribute("ventros.run.outcome", outcome)
        if failed:
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(StatusCode.ERROR)


def finish_request_span(span: Span | None, *, method: str, route: str, status: int) -> None:
    """Name a request's span for its route, and set the response's status."""
    if span is None:
        return
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= _SERVER_ERRORS:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


@asynccontextmanager
async def open_tracing(settings: TracingSettings) -> AsyncIterator[Tracing]:
    """Open tracing to the collector in the settings; closing the context sends the remaining spans."""
    if settings.exporter_otlp_endpoint is None:
        yield Tracing()
        return
    provider = _build_provider(settings)
    try:
        yield Tracing(provider.get_tracer("ventros-agents", VERSION))
    finally:
        # Blocks until the collector has the spans.
        await asyncio.to_thread(provider.shutdown)


def _build_provider(settings: TracingSettings) -> "TracerProvider":
    # The SDK takes a twentieth of the start, and most services trace nothing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    exporter = OTLPSpanExporter(
        endpoint=f"{settings.exporter_otlp_endpoint}/v1/traces",
        headers=_parse_headers(settings),
        timeout=_EXPORT_SECONDS,
    )
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.traces_sampler_arg),
        resource=Resource({"service.name": settings.service_name, "service.version": VERSION}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _parse_headers(settings: TracingSettings) -> dict[str, str]:
    """Parse ``key=value,key=value``, percent-encoded (OpenTelemetry's OTEL_EXPORTER_OTLP_HEADERS)."""
    headers = settings.exporter_otlp_headers
    pairs = (pair.partition("=") for pair in headers.get_secret_value().split(",")) if headers else ()
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs if name.strip()}
