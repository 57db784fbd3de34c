"""Traces over OTLP: requests and runs here, what happens inside a run in :mod:`service.observability.spans`.

Names are OpenTelemetry's semantic conventions (HTTP, and GenAI for agents, models and tools). What people
and models write is never an attribute.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import unquote

from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from core.settings import TracingSettings
from service.observability.spans import RunSpans
from service.version import VERSION

_EXPORT_SECONDS: Final = 5.0
_W3C: Final = TraceContextTextMapPropagator()
_SERVER_ERRORS: Final = 500


class Tracing:
    """Begins the spans of requests and runs.

    Args:
        tracer: None: nothing is traced, and nothing is paid for it.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span | None]:
        """A span around an HTTP request, in the trace its ``traceparent`` names (W3C Trace Context)."""
        if self._tracer is None:
            yield None
            return
        caller = _W3C.extract(dict(Headers(scope=scope)))
        method = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"]}
        span = self._tracer.start_span(method, caller, SpanKind.SERVER, attributes)
        with use_span(span, end_on_exit=True, record_exception=False):
            yield span

    @contextmanager
    def run(self, graph: str, thread_id: str) -> Iterator["RunTrace"]:
        """A span around a run, below the request that began it, and callbacks for what happens inside."""
        if self._tracer is None:
            yield RunTrace(None, None)
            return
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": graph,
            "gen_ai.conversation.id": thread_id,
        }
        span = self._tracer.start_span(f"invoke_agent {graph}", attributes=attributes)
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield RunTrace(span, RunSpans(self._tracer, span))


class RunTrace:
    """A run's span.

    Args:
        span: None where nothing is traced.
        callbacks: What LangChain's callbacks are told to.
    """

    def __init__(self, span: Span | None, callbacks: BaseCallbackHandler | None) -> None:
        self._span = span
        self.callbacks = callbacks

    def ended(self, outcome: str, *, failed: bool) -> None:
        """Say how the run ended, before its block does."""
        if self._span is None:
            return
        self._span.set_attribute("ventros.run.outcome", outcome)
        if failed:
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(StatusCode.ERROR)


def request_ended(span: Span | None, *, method: str, route: str, status: int) -> None:
    """Name a request's span for what served it, and say how."""
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
    """Tracing to the collector the settings name; what is not sent yet is sent when the context closes."""
    if settings.exporter_otlp_endpoint is None:
        yield Tracing()
        return
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.exporter_otlp_endpoint}/v1/traces",
        headers=_headers(settings),
        timeout=_EXPORT_SECONDS,
    )
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.traces_sampler_arg),
        resource=Resource({"service.name": settings.service_name, "service.version": VERSION}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider.get_tracer("ventros-agents", VERSION))
    finally:
        # It waits for the collector.
        await asyncio.to_thread(provider.shutdown)


def _headers(settings: TracingSettings) -> dict[str, str]:
    """``key=value,key=value``, percent-encoded (OpenTelemetry's form of OTEL_EXPORTER_OTLP_HEADERS)."""
    given = settings.exporter_otlp_headers
    pairs = (pair.partition("=") for pair in given.get_secret_value().split(",")) if given else ()
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs if name.strip()}
