"""Who is told of a run: the metrics, its trace, and the audit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.callbacks import BaseCallbackHandler

from service.audit.trail import AuditTrail, Entry
from service.observability.metrics import ADVANCED, RunMeter, ServiceMetrics, measure_run
from service.observability.tracing import Tracing
from service.runs.request import RunPart, RunRequest


class WatchedRun:
    """A run while it is watched.

    Args:
        meter: Counts it.
        handler: What LangChain's callbacks are told to, where it is traced.
    """

    def __init__(self, meter: RunMeter, handler: BaseCallbackHandler | None) -> None:
        self._meter = meter
        self.handler = handler
        self.has_failed = False

    @property
    def outcome(self) -> str:
        """``finished``, ``waiting`` (asks), ``advanced`` (a workflow), ``cancelled``, or an error's code."""
        return self._meter.outcome

    def take(self, part: RunPart) -> None:
        """A part of its stream came."""
        self._meter.take(part)

    def failed(self, code: str) -> None:
        """It ended with an error."""
        self._meter.outcome = code
        self.has_failed = True

    def cancelled(self) -> None:
        """It was torn off."""
        self._meter.outcome = "cancelled"


class RunWatch:
    """Watches runs.

    Args:
        metrics: Where they are counted.
        tracing: Where they are traced.
        audit: Is told how they end.
    """

    def __init__(self, metrics: ServiceMetrics, tracing: Tracing, audit: AuditTrail) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._audit = audit

    @contextmanager
    def over(self, request: RunRequest) -> Iterator[WatchedRun]:
        """Watch a run while the block lasts; how it ended is said inside.

        A run of a workflow is not listened to for its values: it has advanced, and whether the workflow
        waits, failed or is done says the workflow's own row. The audit has no entry of it.
        """
        is_workflow = request.lane == "workflows"
        began, name = time.monotonic(), request.graph.name
        with self._tracing.run(name, request.thread_id) as trace, measure_run(self._metrics, name) as meter:
            if is_workflow:
                meter.outcome = ADVANCED
            run = WatchedRun(meter, trace.callbacks)
            try:
                yield run
            finally:
                trace.ended(run.outcome, failed=run.has_failed)
                if not is_workflow:
                    self._audit.note(_ended(request, run.outcome, time.monotonic() - began))


def _ended(request: RunRequest, outcome: str, seconds: float) -> Entry:
    """What the audit says of a run: the graph, and how it ended."""
    return Entry(
        action="run",
        tool=request.graph.name,
        outcome=outcome,
        details={"seconds": seconds, "repeated": request.repeated},
        actor=request.actor,
    )
