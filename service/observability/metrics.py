"""The service's instruments, in a registry of their own (Prometheus client).

Labels have few values: routes by template, tools and agents by what is registered, models by what is
configured, outcomes by fixed sets. Thread, tenant and user are never labels.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from langgraph.types import StreamPart
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from core.metrics import Attempt, ModelOutcome, use_meter
from service.observability.metrics import FAILURES, SUCCESSES

PREFIX: Final = "ventros_"
# Seconds. Steps of about a half: a percentile read from them is within a quarter of the true one.
SECONDS: Final = (
    *(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300),
)
# A model may name what it likes, and callers a model each: beyond so many, a label says "other".
MOST_MODELS: Final = 32
OTHER: Final = "other"
# How a run of a workflow ends that did not fail: whether the workflow waits, failed or is done, its row says.
ADVANCED: Final = "advanced"


class ServiceMetrics:
    """All instruments of one service; two services in a process have two.

    Attributes:
        registry: What ``/metrics`` shows.
        started_at: ``time.monotonic()`` when the service was opened.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started_at = time.monotonic()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("http_requests", "HTTP requests answered", "route", "method", "status")
        self.request_seconds = self._histogram(
            "http_request_seconds", "Until the last byte of the response", "route", "method"
        )
        self.runs = self._counter("runs", "Runs by how they ended", "graph", "outcome")
        self.run_seconds = self._histogram("run_seconds", "Of a run, waiting included", "graph")
        self.first_token_seconds = self._histogram(
            "run_first_token_seconds", "From a run's begin to the first token of any of its models", "graph"
        )
        self.runs_in_progress = self._gauge("runs_in_progress", "Runs begun or waiting", "graph")
        self.run_failures = self._gauge("run_failures_in_a_row", "Since the last success", "graph")
        self.model_calls = self._counter("model_calls", "Attempts at model calls", "model", "outcome")
        self.model_call_seconds = self._histogram("model_call_seconds", "Of an attempt", "model")
        self.model_tokens = self._counter(
            "model_tokens", "Tokens as providers count them", "model", "direction"
        )
        self.tool_calls = self._counter("tool_calls", "Tool calls", "tool", "outcome")
        self.tool_call_seconds = self._histogram("tool_call_seconds", "Of a tool call", "tool")
        self.agent_attempts = self._counter("agent_attempts", "Agents' attempts", "agent", "outcome")
        self.agent_attempt_seconds = self._histogram("agent_attempt_seconds", "Of an attempt", "agent")
        self.agents_in_progress = self._gauge("agent_attempts_in_progress", "Agents at work", "agent")
        self.checkpoint_groups = self._counter("checkpoint_groups", "Groups by outcome", "outcome")
        self.checkpoint_writes = self._counter("checkpoint_writes", "Writes committed")
        self.checkpoint_rows = self._counter("checkpoint_rows", "Rows committed")
        self.checkpoint_commit_seconds = self._histogram("checkpoint_commit_seconds", "Of a group's commit")
        self._models: set[str] = set()

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for at each scrape.

        Args:
            name: Without the prefix.
            description: One line.
            value: Called from the event loop's thread; must be quick.
        """
        self._gauge(name, description).set_function(value)

    def model_label(self, model: str) -> str:
        """The model's name, or ``other`` once there are many."""
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return OTHER
            self._models.add(model)
        return model

    # What the checkpointer tells (core.metrics.CommitMeter).

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """A group was committed."""
        self.checkpoint_groups.labels("committed").inc()
        self.checkpoint_writes.inc(writes)
        self.checkpoint_rows.inc(rows)
        self.checkpoint_commit_seconds.observe(seconds)

    def record_failure(self) -> None:
        """A group was not committed at this attempt."""
        self.checkpoint_groups.labels("failed").inc()

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, *labels: str) -> Histogram:
        return Histogram(PREFIX + name, description, labels, buckets=SECONDS, registry=self.registry)


class RunMeter:
    """Counts one run, and what happens in it (:class:`core.metrics.Meter`).

    Args:
        metrics: Where.
        graph: The graph's name.

    Attributes:
        outcome: ``finished``, ``waiting`` (with a question), ``advanced`` (a workflow), ``cancelled``, or the
            code of an error.
    """

    def __init__(self, metrics: ServiceMetrics, graph: str) -> None:
        self._metrics = metrics
        self._graph = graph
        self._started = time.perf_counter()
        self._has_spoken = False
        self.outcome = "finished"

    def take(self, part: StreamPart[Any, Any]) -> None:
        """A part of the run's stream; its values say whether it waits with a question."""
        if part["type"] == "values" and part["interrupts"]:
            self.outcome = "waiting"

    def ended(self) -> None:
        """The run is over."""
        metrics = self._metrics
        metrics.runs.labels(self._graph, self.outcome).inc()
        metrics.run_seconds.labels(self._graph).observe(time.perf_counter() - self._started)
        if self.outcome in FAILURES:
            metrics.run_failures.labels(self._graph).inc()
        elif self.outcome in SUCCESSES:
            metrics.run_failures.labels(self._graph).set(0)

    def record_first_token(self) -> None:
        """A model began to reply."""
        if not self._has_spoken:
            self._has_spoken = True
            seconds = time.perf_counter() - self._started
            self._metrics.first_token_seconds.labels(self._graph).observe(seconds)

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """One attempt at a model call."""
        metrics = self._metrics
        label = metrics.model_label(model)
        metrics.model_calls.labels(label, outcome).inc()
        metrics.model_call_seconds.labels(label).observe(seconds)
        metrics.model_tokens.labels(label, "input").inc(input_tokens)
        metrics.model_tokens.labels(label, "output").inc(output_tokens)

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """A tool call."""
        self._metrics.tool_calls.labels(tool, outcome).inc()
        self._metrics.tool_call_seconds.labels(tool).observe(seconds)

    @contextmanager
    def track_agent(self, name: str) -> Iterator[Attempt]:
        """A block in which a specialised agent works."""
        metrics = self._metrics
        attempt, started = Attempt(), time.perf_counter()
        with metrics.agents_in_progress.labels(name).track_inprogress():
            try:
                yield attempt
            finally:
                metrics.agent_attempts.labels(name, attempt.outcome).inc()
                metrics.agent_attempt_seconds.labels(name).observe(time.perf_counter() - started)


@contextmanager
def measure_run(metrics: ServiceMetrics, graph: str) -> Iterator[RunMeter]:
    """Count a run, and what happens in it, while the block lasts; its outcome is set inside."""
    own = RunMeter(metrics, graph)
    with metrics.runs_in_progress.labels(graph).track_inprogress(), use_meter(own):
        try:
            yield own
        finally:
            own.ended()
