"""The status of each graph and each specialised agent, read back from the instruments of ``/metrics``."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Literal, TypeAlias

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, Field

from graphs.registry import REGISTRY
from nodes.coordinator.router import DEGRADED_FAILURES, AgentRegistry
from service.observability.metrics import FAILURES, SUCCESSES, ServiceMetrics

Kind: TypeAlias = Literal["graph", "agent"]
State: TypeAlias = Literal["initializing", "active", "busy", "idle", "degraded", "terminating"]
# Upper bound in seconds, and how many observations were at most that.
Buckets: TypeAlias = Sequence[tuple[float, float]]


class Latency(BaseModel):
    """Seconds, estimated from a histogram; null before the first request."""

    p50: float | None
    p95: float | None
    p99: float | None


class RateLimitUse(BaseModel):
    """How much of a rate limit is used."""

    limit: int = Field(description="Requests per window")
    remaining: int = Field(description="Requests left in the window")
    reset_seconds: float = Field(description="Seconds until the next window")


class AgentStatus(BaseModel):
    """One graph or specialised agent in this process since it started."""

    id: str = Field(description="kind:name, as an agent and a graph may share a name")
    kind: Kind
    name: str
    description: str
    state: State = Field(
        description="initializing: the router is still learning; idle, active: no work, or some; busy: work, "
        "and no concurrency slot is free; degraded: repeated failures; terminating: the service is stopping"
    )
    health: Literal["healthy", "degraded"]
    failures_in_a_row: int
    in_progress: int
    requests: int = Field(description="Requests that have ended, with any outcome")
    succeeded: int
    failed: int = Field(
        description="Failures of the service, a model or the CRM; rejected requests do not count"
    )
    success_rate: float | None = Field(
        description="succeeded / (succeeded + failed); null before the first request"
    )
    latency_seconds: Latency
    uptime_seconds: float
    rate_limit: RateLimitUse | None = Field(
        None, description="Your tenant's, shared by all agents; null where there is no limit"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruments:
    """The instruments of one kind: outcomes and durations."""

    ended: Counter
    seconds: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What the statuses of all graphs and agents depend on.

    Attributes:
        is_stopping: Whether the service is stopping.
        is_full: Whether every concurrency slot of runs is taken.
        is_router_ready: Whether the router has learnt the agents' examples, or could not.
        rate_limit: How much of the caller's rate limit is used; None: there is no limit.
    """

    is_stopping: bool
    is_full: bool
    is_router_ready: bool
    rate_limit: RateLimitUse | None


def list_statuses(
    metrics: ServiceMetrics, agents: AgentRegistry, process: ProcessState
) -> Iterator[AgentStatus]:
    """Yield the status of every graph, then of every specialised agent."""
    for name, spec in REGISTRY.items():
        yield _build_graph_status(metrics, process, name, spec.description)
    for name, agent in agents.specs.items():
        yield _build_agent_status(metrics, agents, process, name, agent.description)


def _build_graph_status(
    metrics: ServiceMetrics, process: ProcessState, name: str, description: str
) -> AgentStatus:
    return _build_status(
        metrics,
        process,
        ("graph", name, description),
        _Instruments(ended=metrics.runs, seconds=metrics.run_seconds),
        in_progress=int(read_value(metrics.runs_in_progress, graph=name)),
        failures=int(read_value(metrics.run_failures, graph=name)),
        is_ready=True,
    )


def _build_agent_status(
    metrics: ServiceMetrics, agents: AgentRegistry, process: ProcessState, name: str, description: str
) -> AgentStatus:
    return _build_status(
        metrics,
        process,
        ("agent", name, description),
        _Instruments(ended=metrics.agent_attempts, seconds=metrics.agent_attempt_seconds),
        in_progress=int(read_value(metrics.agents_in_progress, agent=name)),
        failures=agents.health.count_failures(name),
        is_ready=process.is_router_ready,
    )


def _build_status(
    metrics: ServiceMetrics,
    process: ProcessState,
    subject: tuple[Kind, str, str],
    instruments: _Instruments,
    *,
    in_progress: int,
    failures: int,
    is_ready: bool,
) -> AgentStatus:
    kind, name, description = subject
    counts = read_outcomes(instruments.ended, **{kind: name})
    succeeded, failed = _sum_outcomes(counts, SUCCESSES), _sum_outcomes(counts, FAILURES)
    buckets = read_buckets(instruments.seconds, **{kind: name})
    return AgentStatus(
        id=f"{kind}:{name}",
        kind=kind,
        name=name,
        description=description,
        state=_derive_state(process, in_progress=in_progress, failures=failures, is_ready=is_ready),
        health="degraded" if failures >= DEGRADED_FAILURES else "healthy",
        failures_in_a_row=failures,
        in_progress=in_progress,
        requests=int(sum(counts.values())),
        succeeded=succeeded,
        failed=failed,
        success_rate=succeeded / (succeeded + failed) if succeeded + failed else None,
        latency_seconds=Latency(
            p50=estimate_quantile(0.5, buckets),
            p95=estimate_quantile(0.95, buckets),
            p99=estimate_quantile(0.99, buckets),
        ),
        uptime_seconds=time.monotonic() - metrics.started_at,
        rate_limit=process.rate_limit,
    )


def _derive_state(process: ProcessState, *, in_progress: int, failures: int, is_ready: bool) -> State:
    if process.is_stopping:
        return "terminating"
    if not is_ready:
        return "initializing"
    if failures >= DEGRADED_FAILURES:
        return "degraded"
    if not in_progress:
        return "idle"
    return "busy" if process.is_full else "active"


def _sum_outcomes(counts: Mapping[str, float], outcomes: frozenset[str]) -> int:
    return int(sum(count for outcome, count in counts.items() if outcome in outcomes))


def read_value(gauge: Gauge, **labels: str) -> float:
    """Return the value of one series; 0 where there is none."""
    return next((value for found, value in _read_samples(gauge, "") if found == labels), 0.0)


def read_outcomes(counter: Counter, **labels: str) -> Mapping[str, float]:
    """Return the counts of the series with these labels, by their label ``outcome``."""
    samples = _read_samples(counter, "_total")
    return {found["outcome"]: count for found, count in samples if labels.items() <= found.items()}


def read_buckets(histogram: Histogram, **labels: str) -> Buckets:
    """Return the buckets of one series, lowest first; none where there is no such series."""
    return sorted(
        (float(found["le"]), count)
        for found, count in _read_samples(histogram, "_bucket")
        if labels.items() <= found.items()
    )


def estimate_quantile(share: float, buckets: Buckets) -> float | None:
    """Estimate the value below which a share of the observations is, as PromQL's ``histogram_quantile``.

    Args:
        share: Above 0, at most 1.
        buckets: The buckets; the last one's bound is infinity.

    Returns:
        Linear within its bucket, the highest finite bound beyond that; None without an observation.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    rank = share * total
    for (low, below), (high, within) in pairwise([(0.0, 0.0), *buckets]):
        if within >= rank:
            return low if high == inf else low + (high - low) * (rank - below) / (within - below)
    return None


def _read_samples(
    metric: Counter | Gauge | Histogram, suffix: str
) -> Sequence[tuple[Mapping[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in metric.collect()
        for sample in family.samples
        if sample.name == f"{family.name}{suffix}"
    ]
