"""The service's instruments, in a Prometheus registry of their own.

Labels have few values: routes by template, tools and agents by what is registered, models by what is
configured, outcomes by fixed sets. Thread and user are never labels; tenants are for open runs alone, a
hundred of them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol

from langgraph.types import StreamPart
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from checkpoints.saver import GroupCommitSaver
from core.circuit import CircuitState
from core.concurrency import FairSemaphore
from core.errors import RunStopped, ServiceError
from core.metrics import Attempt, ModelOutcome, use_meter
from core.postgres import Pool

PREFIX: Final = "ventros_"
# Upper bounds in seconds, each about half as large again as the last: a percentile read from them is within a
# quarter of the true one.
SECONDS: Final = (
    *(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300),
)
# Callers may name any model: beyond so many, the label is "other".
MAX_MODELS: Final = 32
OTHER: Final = "other"

SUCCESSES: Final = frozenset({"finished", "waiting", "succeeded", "answered"})
_SERVER_ERRORS: Final = 500


def _find_failure_codes(kind: type[ServiceError]) -> Iterator[str]:
    if kind.status >= _SERVER_ERRORS and kind is not RunStopped:
        yield kind.code
    for subclass in kind.__subclasses__():
        yield from _find_failure_codes(subclass)


# Outcomes that are the service's fault; errors of callers and a stop of the service are not.
FAILURES: Final = frozenset({*_find_failure_codes(ServiceError), "failed", "timed_out"})


class ServiceMetrics:
    """The instruments of one service; two services in a process have two sets.

    Implements :class:`core.metrics.CommitMeter`.

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
            "http_request_seconds",
            "Duration of a request until the last byte of its response",
            "route",
            "method",
        )
        self.runs = self._counter("runs", "Runs by outcome", "graph", "outcome")
        self.run_seconds = self._histogram("run_seconds", "Duration of a run, waiting included", "graph")
        self.first_token_seconds = self._histogram(
            "run_first_token_seconds", "From the start of a run to the first token of any model", "graph"
        )
        self.runs_in_progress = self._gauge("runs_in_progress", "Runs that execute or wait to", "graph")
        self.run_failures = self._gauge(
            "run_failures_in_a_row", "Failed runs since the last success", "graph"
        )
        self.model_calls = self._counter("model_calls", "Attempts at model calls", "model", "outcome")
        self.model_call_seconds = self._histogram(
            "model_call_seconds", "Duration of an attempt at a model call", "model"
        )
        self.model_tokens = self._counter(
            "model_tokens", "Tokens as providers count them", "model", "direction"
        )
        self.tool_calls = self._counter("tool_calls", "Tool calls", "tool", "outcome")
        self.tool_call_seconds = self._histogram("tool_call_seconds", "Duration of a tool call", "tool")
        self.agent_attempts = self._counter("agent_attempts", "Attempts of agents", "agent", "outcome")
        self.agent_attempt_seconds = self._histogram(
            "agent_attempt_seconds", "Duration of an agent's attempt", "agent"
        )
        self.agents_in_progress = self._gauge(
            "agent_attempts_in_progress", "Attempts of agents in progress", "agent"
        )
        self.checkpoint_groups = self._counter("checkpoint_groups", "Group commits of checkpoints", "outcome")
        self.checkpoint_writes = self._counter("checkpoint_writes", "Checkpoint writes committed")
        self.checkpoint_rows = self._counter("checkpoint_rows", "Checkpoint rows committed")
        self.checkpoint_commit_seconds = self._histogram(
            "checkpoint_commit_seconds", "Duration of a group commit"
        )
        self.run_claims = self._counter(
            "run_claims",
            "Claims of this process on runs: first, again (another replica died), lost",
            "outcome",
        )
        self.runs_open = self._gauge(
            "runs_open", "Runs of all replicas that have not ended", "queue", "tenant", "status", "replica"
        )
        self.runs_oldest_seconds = self._gauge(
            "runs_oldest_seconds", "Age of the oldest run that has not ended", "queue", "tenant", "status"
        )
        self.jobs = self._counter("jobs", "Attempts at jobs of the task queue", "task", "outcome")
        self.job_seconds = self._histogram("job_seconds", "Duration of an attempt at a job", "task")
        self.jobs_waiting = self._gauge(
            "jobs_waiting", "Jobs that wait for a worker, of all replicas", "task"
        )
        self.jobs_oldest_seconds = self._gauge(
            "jobs_oldest_waiting_seconds", "How long the oldest job that waits has waited", "task"
        )
        self.jobs_failed = self._gauge("jobs_failed", "Jobs that have failed for good and are kept", "task")
        self.webhook_deliveries = self._counter(
            "webhook_deliveries", "Attempts at deliveries of events to webhooks", "outcome"
        )
        self.webhook_seconds = self._histogram(
            "webhook_delivery_duration_seconds", "Time of attempts at deliveries to webhooks"
        )
        self.webhooks_waiting = self._gauge(
            "webhook_deliveries_waiting", "Deliveries to webhooks that are due, of all replicas"
        )
        self.webhooks_oldest_seconds = self._gauge(
            "webhook_oldest_delivery_seconds", "How long the first delivery that is due has been due"
        )
        self.broker_messages = self._counter(
            "broker_messages", "Events published to the broker, and commands taken from it", "outcome"
        )
        self._models: set[str] = set()

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a number that is read at each scrape.

        Args:
            name: The name without the prefix.
            description: One line.
            value: Called in the event loop's thread; must not block.
        """
        self._gauge(name, description).set_function(value)

    def count_run(self, graph: str, outcome: str) -> None:
        """Count a run that has ended or waits.

        Args:
            graph: The graph's name.
            outcome: ``finished``, ``waiting``, ``cancelled`` or an error's code; a workflow's status.
        """
        self.runs.labels(graph, outcome).inc()
        if outcome in FAILURES:
            self.run_failures.labels(graph).inc()
        elif outcome in SUCCESSES:
            self.run_failures.labels(graph).set(0)

    def model_label(self, model: str) -> str:
        """Return the model's name, or ``other`` once there are :data:`MAX_MODELS`."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(model)
        return model

    def record_commit(self, *, writes: int, rows: int, seconds: float) -> None:
        """Count a group of checkpoints that was committed."""
        self.checkpoint_groups.labels("committed").inc()
        self.checkpoint_writes.inc(writes)
        self.checkpoint_rows.inc(rows)
        self.checkpoint_commit_seconds.observe(seconds)

    def record_failure(self) -> None:
        """Count a failed attempt to commit a group of checkpoints."""
        self.checkpoint_groups.labels("failed").inc()

    def record_job(self, task: str, outcome: str, seconds: float) -> None:
        """Count an attempt at a job of the task queue."""
        self.jobs.labels(task, outcome).inc()
        self.job_seconds.labels(task).observe(seconds)

    def show_queue(self, task: str, *, waiting: int, oldest_seconds: float, failed: int) -> None:
        """Show the jobs of a task that are in the queue."""
        self.jobs_waiting.labels(task).set(waiting)
        self.jobs_oldest_seconds.labels(task).set(oldest_seconds)
        self.jobs_failed.labels(task).set(failed)

    def record_delivery(self, outcome: str, seconds: float) -> None:
        """Count an attempt at a delivery to a webhook: ``delivered``, ``retried`` or ``dead``."""
        self.webhook_deliveries.labels(outcome).inc()
        self.webhook_seconds.observe(seconds)

    def show_deliveries(self, waiting: int, oldest_seconds: float) -> None:
        """Show how many deliveries are due, and for how long the first of them has been."""
        self.webhooks_waiting.set(waiting)
        self.webhooks_oldest_seconds.set(oldest_seconds)

    def record_broker(self, outcome: str, count: int = 1) -> None:
        """Count events that were ``published``, and commands ``taken``, ``dead`` or ``returned``."""
        self.broker_messages.labels(outcome).inc(count)

    def record_claim(self, outcome: Literal["first", "again", "lost"]) -> None:
        """Count a claim of this process on a run."""
        self.run_claims.labels(outcome).inc()

    def show_open_runs(
        self, counts: Mapping[tuple[str, str, str, str], int], ages: Mapping[tuple[str, str, str], float]
    ) -> None:
        """Show the runs of all replicas that have not ended; see :class:`service.runs.claims.ClaimMeter`."""
        self.runs_open.clear()
        self.runs_oldest_seconds.clear()
        for labels, count in counts.items():
            self.runs_open.labels(*labels).set(count)
        for group, seconds in ages.items():
            self.runs_oldest_seconds.labels(*group).set(seconds)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, *labels: str) -> Histogram:
        return Histogram(PREFIX + name, description, labels, buckets=SECONDS, registry=self.registry)


class RunMeter:
    """Counts one run, and what happens in it (:class:`core.metrics.Meter`).

    Args:
        metrics: The instruments.
        graph: The graph's name.
        is_part: Whether it is one of the runs of a workflow, which is counted when it ends.

    Attributes:
        outcome: ``finished``, ``waiting`` (for a person), ``cancelled``, or an error code.
        first_token: Seconds to the first token of any model; ``None``: there was none.
        tokens: Input and output tokens by model, as providers counted them.
    """

    def __init__(self, metrics: ServiceMetrics, graph: str, *, is_part: bool = False) -> None:
        self._metrics = metrics
        self._is_part = is_part
        self._graph = graph
        self._started = time.perf_counter()
        self.outcome = "finished"
        self.first_token: float | None = None
        self.tokens: dict[str, tuple[int, int]] = {}

    def take(self, part: StreamPart[Any, Any]) -> None:
        """Note from a part of the run's stream whether the run waits for a person."""
        if part["type"] == "values" and part["interrupts"]:
            self.outcome = "waiting"

    def finish(self) -> None:
        """Count the run with its outcome, unless it is a part of a longer one."""
        self._metrics.run_seconds.labels(self._graph).observe(time.perf_counter() - self._started)
        if not self._is_part:
            self._metrics.count_run(self._graph, self.outcome)

    def record_first_token(self) -> None:
        """Note that a model began to reply; only the first time in a run counts."""
        if self.first_token is None:
            self.first_token = time.perf_counter() - self._started
            self._metrics.first_token_seconds.labels(self._graph).observe(self.first_token)

    def record_model_call(
        self, model: str, outcome: ModelOutcome, seconds: float, *, input_tokens: int, output_tokens: int
    ) -> None:
        """Count one attempt at a model call."""
        metrics = self._metrics
        label = metrics.model_label(model)
        metrics.model_calls.labels(label, outcome).inc()
        metrics.model_call_seconds.labels(label).observe(seconds)
        metrics.model_tokens.labels(label, "input").inc(input_tokens)
        metrics.model_tokens.labels(label, "output").inc(output_tokens)
        if input_tokens or output_tokens:
            known = self.tokens.get(model, (0, 0))
            self.tokens[model] = (known[0] + input_tokens, known[1] + output_tokens)

    def record_tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a tool call."""
        self._metrics.tool_calls.labels(tool, outcome).inc()
        self._metrics.tool_call_seconds.labels(tool).observe(seconds)

    @contextmanager
    def track_agent(self, name: str) -> Iterator[Attempt]:
        """Count an agent's attempt, which lasts as long as the block; its outcome is set inside."""
        metrics = self._metrics
        attempt, started = Attempt(), time.perf_counter()
        with metrics.agents_in_progress.labels(name).track_inprogress():
            try:
                yield attempt
            finally:
                metrics.agent_attempts.labels(name, attempt.outcome).inc()
                metrics.agent_attempt_seconds.labels(name).observe(time.perf_counter() - started)


@contextmanager
def measure_run(metrics: ServiceMetrics, graph: str, *, is_part: bool = False) -> Iterator[RunMeter]:
    """Count a run, which lasts as long as the block, and what happens in it; its outcome is set inside."""
    meter = RunMeter(metrics, graph, is_part=is_part)
    with metrics.runs_in_progress.labels(graph).track_inprogress(), use_meter(meter):
        try:
            yield meter
        finally:
            meter.finish()


class _CircuitCollector(Collector):
    """Shows the circuits of what is called over the network."""

    def __init__(self, metrics: ServiceMetrics, circuits: Callable[[], Mapping[str, CircuitState]]) -> None:
        self._metrics = metrics
        self._circuits = circuits

    def collect(self) -> Iterator[Metric]:
        """Return one gauge, labelled by circuit: 1 while it is open or half open, else 0."""
        states: dict[str, float] = {}
        for name, state in self._circuits().items():
            label = self._metrics.model_label(name)
            states[label] = max(states.get(label, 0.0), float(state != "closed"))
        gauge = GaugeMetricFamily(
            PREFIX + "circuit_open",
            "Whether the CRM or a model rests after it was unavailable",
            labels=["name"],
        )
        for label, value in states.items():
            gauge.add_metric([label], value)
        yield gauge


class RunCounts(Protocol):
    """How many runs there are, as :class:`service.runs.executor.RunExecutor` counts them."""

    @property
    def active(self) -> int:
        """Runs in progress or waiting for their turn."""
        ...

    @property
    def queued(self) -> int:
        """Runs that wait for their thread or for a concurrency slot."""
        ...

    def slots(self, queue: Literal["runs"]) -> FairSemaphore:
        """Return the concurrency slots of runs."""
        ...


def add_gauges(
    metrics: ServiceMetrics,
    *,
    runs: RunCounts,
    pool: Pool,
    saver: GroupCommitSaver,
    steps: FairSemaphore,
    circuits: Callable[[], Mapping[str, CircuitState]],
) -> None:
    """Add the gauges that are read from the service's parts at each scrape."""
    metrics.registry.register(_CircuitCollector(metrics, circuits))

    def read_pool(name: str) -> float:
        stats: Mapping[str, int] = pool.get_stats()
        return stats.get(name, 0)

    metrics.gauge("runs_active", "Runs of all graphs that execute or wait to", lambda: runs.active)
    metrics.gauge(
        "runs_queued", "Runs that wait for their thread or for a concurrency slot", lambda: runs.queued
    )
    metrics.gauge("runs_slots", "Concurrency slots of runs", lambda: runs.slots("runs").limit)
    metrics.gauge("workflow_steps_active", "Working steps of workflows in progress", lambda: steps.active)
    metrics.gauge(
        "workflow_steps_queued", "Working steps that wait for a concurrency slot", lambda: steps.waiting
    )
    metrics.gauge("checkpoint_queue", "Checkpoint writes that wait for a commit", lambda: saver.queued)
    metrics.gauge("pool_connections", "Open connections", lambda: read_pool("pool_size"))
    metrics.gauge(
        "pool_connections_idle", "Open connections that are not in use", lambda: read_pool("pool_available")
    )
    metrics.gauge("pool_connections_max", "Maximum number of open connections", lambda: pool.max_size)
    metrics.gauge("pool_waiting", "Callers that wait for a connection", lambda: read_pool("requests_waiting"))
