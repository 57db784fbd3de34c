"""Report runs to the metrics, to tracing and to the audit trail."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from service.audit.trail import AuditTrail, Entry
from service.observability.metrics import RunMeter, ServiceMetrics, measure_run
from service.observability.tracing import Tracing
from service.runs.request import RunPart, RunRequest


class ObservedRun:
    """A run that is being observed.

    Args:
        meter: Counts the run.
        handler: Callback handler that traces the run; ``None``: it is not traced.

    Attributes:
        has_failed: Whether the run ended with an error.
    """

    def __init__(self, meter: RunMeter, handler: BaseCallbackHandler | None) -> None:
        self._meter = meter
        self.handler = handler
        self.has_failed = False

    @property
    def outcome(self) -> str:
        """``finished``, ``waiting`` (interrupted), ``cancelled``, or a code."""
        return self._meter.outcome

    @property
    def usage(self) -> dict[str, Any]:
        """``first_token_seconds``, and ``tokens``: ``model``, ``input`` and ``output`` of each model."""
        first = self._meter.first_token
        tokens = [
            {"model": model, "input": given, "output": made}
            for model, (given, made) in self._meter.tokens.items()
        ]
        return {
            **({} if first is None else {"first_token_seconds": first}),
            **({"tokens": tokens} if tokens else {}),
        }

    def take(self, part: RunPart) -> None:
        """Take note of a part of the run's stream."""
        self._meter.take(part)

    def mark_failed(self, code: str) -> None:
        """Record that the run ended with an error of this code."""
        self._meter.outcome = code
        self.has_failed = True

    def mark_cancelled(self) -> None:
        """Record that the run was cancelled within a step."""
        self._meter.outcome = "cancelled"


class RunObserver:
    """Observes runs.

    Args:
        metrics: Where runs are counted.
        tracing: Where runs are traced.
        audit: Where the end of each run is recorded.
        prompts: Version of the prompts, for traces.
    """

    def __init__(
        self, metrics: ServiceMetrics, tracing: Tracing, audit: AuditTrail, *, prompts: str = ""
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._audit = audit
        self._prompts = prompts

    @contextmanager
    def observe(self, request: RunRequest) -> Iterator[ObservedRun]:
        """Observe a run while the context is open; its outcome is set inside.

        A workflow may take several runs. Its worker counts it when it waits or ends, and the audit trail has
        no entry of its runs.
        """
        is_workflow = request.queue == "workflows"
        started, name = time.monotonic(), request.graph.name
        with (
            self._tracing.trace_run(name, request.thread_id, self._prompts) as trace,
            measure_run(self._metrics, name, is_part=is_workflow) as meter,
        ):
            run = ObservedRun(meter, trace.callbacks)
            try:
                yield run
            finally:
                trace.set_outcome(run.outcome, failed=run.has_failed)
                if not is_workflow:
                    seconds = time.monotonic() - started
                    self._audit.note(
                        Entry(
                            action="run",
                            tool=name,
                            outcome=run.outcome,
                            details={"seconds": seconds, "repeated": request.repeated, **run.usage},
                            actor=request.actor,
                        )
                    )
