"""``GET /v1/agents``: how the graphs and the specialised agents are doing."""

from collections.abc import Iterator

from fastapi import APIRouter
from pydantic import BaseModel

from core.errors import NotFound
from graphs.registry import REGISTRY
from service.lifespan import Service
from service.observability.agent_status import AgentStatus, ProcessState, RateLimitUse, list_statuses
from service.observability.capabilities import Capabilities, describe_agent, describe_graph
from service.routes.dependencies import OpenService, Requester


class AgentDetails(AgentStatus):
    """One graph or specialised agent: how it is doing, and what it can do."""

    capabilities: Capabilities


class Agents(BaseModel):
    """Every graph and every specialised agent."""

    agents: list[AgentStatus]


def agents_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1", tags=["agents"])

    @router.get("/agents")
    async def list_agents(service: OpenService, requester: Requester) -> Agents:
        """List every graph and every specialised agent, with this process's numbers since it started."""
        return Agents(agents=list(_list_statuses(service, requester.tenant)))

    @router.get("/agents/{agent_id}")
    async def get_agent(agent_id: str, service: OpenService, requester: Requester) -> AgentDetails:
        """Return one by its id (``graph:react``, ``agent:billing_support``), with its capabilities."""
        for status in _list_statuses(service, requester.tenant):
            if status.id == agent_id:
                capabilities = _describe_capabilities(service, status)
                return AgentDetails(**dict(status), capabilities=capabilities)
        raise NotFound(f"there is no agent {agent_id!r}; GET /v1/agents lists them")

    return router


def _list_statuses(service: Service, tenant: str) -> Iterator[AgentStatus]:
    process = ProcessState(
        is_stopping=service.lifecycle.is_stopping,
        is_full=service.runs.slots("runs").is_full,
        is_router_ready=service.warming.done(),
        rate_limit=_get_rate_limit(service, tenant),
    )
    return list_statuses(service.metrics, service.agents, process)


def _describe_capabilities(service: Service, status: AgentStatus) -> Capabilities:
    context_tokens = service.settings.context.tokens
    if status.kind == "agent":
        spec = service.agents.specs[status.name]
        return describe_agent(spec, model=service.model, context_tokens=context_tokens)
    return describe_graph(
        REGISTRY[status.name],
        tools=service.tools,
        model=service.model,
        run_seconds=service.settings.runs.timeout_seconds,
        context_tokens=context_tokens,
    )


def _get_rate_limit(service: Service, tenant: str) -> RateLimitUse | None:
    status = service.rates.get_status(tenant) if service.rates else None
    if status is None:
        return None
    return RateLimitUse(limit=status.limit, remaining=status.remaining, reset_seconds=status.reset)
