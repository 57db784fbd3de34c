"""How each graph and each specialised agent is doing, from the instruments that ``/metrics`` shows."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nodes.coordinator.router import DEGRADED_FAILURES
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, Field

from graphs.registry import REGISTRY
from service.lifespan import Service
from service.observability.agent_status import estimate_quantile, outcomes, read_buckets, value
from service.observability.metrics import FAILURES, SUCCESSES

Kind: TypeAlias = Literal["graph", "agent"]
State: TypeAlias = Literal["initializing", "active", "busy", "idle", "degraded", "terminating"]


class Latency(BaseModel):
    """Seconds, read from a histogram; null before the first request."""

    p50: float | None
    p95: float | None
    p99: float | None


class RateLimitUse(BaseModel):
    """How much of a rate limit is used."""

    limit: int = Field(description="Requests in the window")
    remaining: int = Field(description="Of these, still free")
    reset_seconds: float = Field(description="Until the window is over")


class AgentStatus(BaseModel):
    """One graph or specialised agent, in this process, since it was started."""

    id: str = Field(description="kind:name, as an agent and a graph may share a name")
    kind: Kind
    name: str
    description: str
    state: State = Field(
        description="initializing: still learning; idle, active: nothing or something in progress; busy: "
        "work, and no place free for more; degraded: failed again and again; terminating: the service stops"
    )
    health: Literal["healthy", "degraded"]
    failures_in_a_row: int
    in_progress: int
    requests: int = Field(description="That have ended, however they ended")
    succeeded: int
    failed: int = Field(description="By a fault of ours, a model or the CRM; refused callers are none")
    success_rate: float | None = Field(description="Of succeeded and failed; null before the first")
    latency_seconds: Latency
    uptime_seconds: float
    rate_limit: RateLimitUse | None = Field(
        None, description="Of your tenant, for all agents together; null where there is no limit"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruments:
    """Where the numbers of a kind are."""

    ended: Counter
    seconds: Histogram


def statuses(service: Service, tenant: str) -> Iterator[AgentStatus]:
    """Every graph, then every agent of the roster.

    Args:
        service: Whose they are.
        tenant: Who looks: the use of the rate limit is theirs, and shared by all agents.
    """
    used = _rate_limit(service, tenant)
    for name, spec in REGISTRY.items():
        yield _graph(service, name, spec.description).model_copy(update={"rate_limit": used})
    for name, agent in service.agents.specs.items():
        yield _agent(service, name, agent.description).model_copy(update={"rate_limit": used})


def _rate_limit(service: Service, tenant: str) -> RateLimitUse | None:
    standing = service.rates.standing(tenant) if service.rates else None
    if standing is None:
        return None
    return RateLimitUse(limit=standing.limit, remaining=standing.remaining, reset_seconds=standing.reset)


def _graph(service: Service, name: str, description: str) -> AgentStatus:
    metrics = service.metrics
    return _status(
        service,
        ("graph", name, description),
        _Instruments(ended=metrics.runs, seconds=metrics.run_seconds),
        in_progress=int(value(metrics.runs_in_progress, graph=name)),
        failures=int(value(metrics.run_failures, graph=name)),
        is_ready=True,
    )


def _agent(service: Service, name: str, description: str) -> AgentStatus:
    metrics = service.metrics
    return _status(
        service,
        ("agent", name, description),
        _Instruments(ended=metrics.agent_attempts, seconds=metrics.agent_attempt_seconds),
        in_progress=int(value(metrics.agents_in_progress, agent=name)),
        failures=service.agents.health.count_failures(name),
        is_ready=service.warming.done(),
    )


def _status(
    service: Service,
    named: tuple[Kind, str, str],
    instruments: _Instruments,
    *,
    in_progress: int,
    failures: int,
    is_ready: bool,
) -> AgentStatus:
    kind, name, description = named
    ended = outcomes(instruments.ended, **{kind: name})
    succeeded, failed = _total(ended, SUCCESSES), _total(ended, FAILURES)
    times = read_buckets(instruments.seconds, **{kind: name})
    judged = succeeded + failed
    latency = Latency(
        p50=estimate_quantile(0.5, times),
        p95=estimate_quantile(0.95, times),
        p99=estimate_quantile(0.99, times),
    )
    return AgentStatus(
        id=f"{kind}:{name}",
        kind=kind,
        name=name,
        description=description,
        state=_state(service, in_progress=in_progress, failures=failures, is_ready=is_ready),
        health="degraded" if failures >= DEGRADED_FAILURES else "healthy",
        failures_in_a_row=failures,
        in_progress=in_progress,
        requests=int(sum(ended.values())),
        succeeded=succeeded,
        failed=failed,
        success_rate=succeeded / judged if judged else None,
        latency_seconds=latency,
        uptime_seconds=time.monotonic() - service.metrics.started_at,
    )


def _state(service: Service, *, in_progress: int, failures: int, is_ready: bool) -> State:
    if service.lifecycle.is_leaving:
        return "terminating"
    if not is_ready:
        return "initializing"
    if failures >= DEGRADED_FAILURES:
        return "degraded"
    if not in_progress:
        return "idle"
    return "busy" if service.runs.places("runs").is_full else "active"


def _total(counts: Mapping[str, float], of: frozenset[str]) -> int:
    return int(sum(count for outcome, count in counts.items() if outcome in of))
