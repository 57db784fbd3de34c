"""A graph of the registry as the service compiles it: real Postgres, the development CRM's tools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from langgraph.graph.state import CompiledStateGraph

from checkpoints.pool import Pool
from checkpoints.saver import open_saver
from core.models import ChatModels
from core.settings import CrmSettings
from crm.app import create_crm
from graphs.spec import GraphSpec
from nodes.deps import Deps
from tools.catalogue import crm_tools
from tools.crm_client import CrmClient, crm_http_client


@asynccontextmanager
async def development_deps(pool: Pool, models: ChatModels) -> AsyncIterator[Deps]:
    """Dependencies over the development CRM in the test's database."""
    settings = CrmSettings(max_attempts=1)
    transport = httpx.ASGITransport(create_crm(pool, settings.api_key))
    async with crm_http_client(settings, "http://development-crm", transport=transport) as http:
        crm = CrmClient(http, settings)
        yield Deps(models=models, tools=crm_tools(crm), crm=crm)


async def compiled(spec: GraphSpec, deps: Deps, pool: Pool) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph with the service's checkpointer."""
    return spec.build(deps).compile(checkpointer=await open_saver(pool), name=spec.name)
