"""``GET /v1/agents``: how the graphs and the specialised agents are doing."""

from fastapi import APIRouter
from pydantic import BaseModel

from core.errors import NotFound
from service.observability.agent_status import AgentStatus, list_statuses
from service.routes.dependencies import OpenService, Requester


class Agents(BaseModel):
    """Every graph and every specialised agent."""

    agents: list[AgentStatus]


def agents_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1", tags=["agents"])

    @router.get("/agents")
    async def list_agents(service: OpenService, requester: Requester) -> Agents:
        """List every graph and every specialised agent, with this process's numbers since it started."""
        return Agents(agents=list(list_statuses(service, requester.tenant)))

    @router.get("/agents/{agent_id}")
    async def get_agent(agent_id: str, service: OpenService, requester: Requester) -> AgentStatus:
        """Return one by its id: ``graph:react``, ``agent:billing_support``."""
        for status in list_statuses(service, requester.tenant):
            if status.id == agent_id:
                return status
        raise NotFound(f"there is no agent {agent_id!r}; GET /v1/agents lists them")

    return router
