"""A graph of the registry as the service compiles it: real Postgres, the development CRM's tools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
from langgraph.graph.state import CompiledStateGraph

from core.models import ChatModels
from core.postgres import Pool
from core.settings import CrmSettings
from dev_crm.app import create_crm
from graphs.spec import GraphSpec
from nodes.coordinator.router import AgentRegistry, Router
from nodes.deps import Deps
from tests.support.savers import saver_on
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient, create_http_client

# For graphs that dispatch nothing.
NO_AGENTS = AgentRegistry(specs={}, router=cast("Router", None))


def empty_crm() -> CrmClient:
    """Return a client of a CRM without contacts."""
    settings = CrmSettings(max_attempts=1, rest_seconds=1e-6)
    nobody = httpx.MockTransport(lambda _: httpx.Response(404))
    return CrmClient(create_http_client(settings, "http://crm", transport=nobody), settings)


@asynccontextmanager
async def development_deps(pool: Pool, models: ChatModels) -> AsyncIterator[Deps]:
    """Open dependencies over the development CRM in the test's database."""
    settings = CrmSettings(max_attempts=1, rest_seconds=1e-6)
    transport = httpx.ASGITransport(create_crm(pool, settings.api_key))
    async with create_http_client(settings, "http://development-crm", transport=transport) as http:
        crm = CrmClient(http, settings)
        yield Deps(models=models, tools=crm_tools(crm), crm=crm, agents=NO_AGENTS)


async def compiled(spec: GraphSpec, deps: Deps, pool: Pool) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the graph with the service's checkpointer."""
    return spec.build(deps).compile(checkpointer=await saver_on(pool), name=spec.name)
