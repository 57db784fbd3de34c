"""What working steps of workflows reach: hosts, databases, agents, and a bounded number of slots."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from core.concurrency import FairSemaphore
from core.effects import Effects
from core.settings import WorkflowSettings
from graphs.registry import STEP_GRAPHS
from graphs.workflow_agents import RegistryGraphs
from nodes.deps import Deps
from nodes.workflow.executors import build_executors
from workflows.connections import open_connections
from workflows.http import open_http
from workflows.ports import Engine, StepPorts


@asynccontextmanager
async def open_engine(
    settings: WorkflowSettings,
    *,
    databases: Mapping[str, str],
    deps: Deps,
    crm: httpx.AsyncClient,
    effects: Effects,
) -> AsyncIterator[Engine]:
    """Open the connections of working steps.

    Args:
        settings: Hosts, and how many steps run at once.
        databases: Databases that ``database_query`` steps read: connection strings by name.
        deps: What the graphs that are steps are built with.
        crm: The CRM's client.
        effects: Records effects.
    """
    async with AsyncExitStack() as stack:
        ports = StepPorts(
            http=await stack.enter_async_context(open_http(settings, crm)),
            sql=await stack.enter_async_context(
                open_connections(databases, max_bytes=settings.query_limit_bytes)
            ),
            graphs=RegistryGraphs(STEP_GRAPHS, deps),
            effects=effects,
        )
        slots = FairSemaphore(settings.max_concurrent_steps, settings.scheduling)
        yield Engine(executors=build_executors(ports), slots=slots)
