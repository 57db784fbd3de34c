"""What workflows need while the service is open."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import httpx
from langgraph.types import Checkpointer

from core.concurrency import FairSemaphore
from core.effects import Effects
from core.postgres import Pool
from core.settings import WorkflowSettings
from core.tasks import background
from graphs.registry import REGISTRY
from graphs.workflow import compile_workflow
from graphs.workflow_agents import RegistryGraphs
from nodes.deps import Deps
from nodes.workflow.steps import executors
from service.runs.compiled import CompiledGraph
from service.runs.executor import Runs
from service.workflows.run_request import WORKFLOW, WorkflowGraphs
from service.workflows.worker import WorkflowKeeper
from workflows.connections import open_connections
from workflows.definition.workflow import Definition
from workflows.http import open_http
from workflows.ports import Engine, StepPorts
from workflows.store import WorkflowStore

# The graphs that may be a step: those that ask no customer, and not the one that runs workflows.
AGENTS: Final = frozenset(
    name for name, spec in REGISTRY.items() if spec.asks == "company" and name != "workflow"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflows:
    """What the routes need.

    Attributes:
        store: The table of runs.
        graphs: Compiled definitions.
        keeper: Has runs go on.
        slots: Of working steps.
        agents: Names of the graphs that may be a step.
    """

    store: WorkflowStore
    graphs: WorkflowGraphs
    keeper: WorkflowKeeper
    slots: FairSemaphore
    agents: frozenset[str]


@asynccontextmanager
async def open_engine(
    settings: WorkflowSettings, *, deps: Deps, crm: httpx.AsyncClient, effects: Effects
) -> AsyncIterator[Engine]:
    """Open what working steps reach the outside by.

    Args:
        settings: Hosts, databases and how many steps run at once.
        deps: What the graphs that are steps are built with.
        crm: The CRM's client.
        effects: Where effects are recorded.
    """
    async with AsyncExitStack() as stack:
        ports = StepPorts(
            http=await stack.enter_async_context(open_http(settings, crm)),
            sql=await stack.enter_async_context(open_connections(settings.connection_urls)),
            graphs=RegistryGraphs({name: REGISTRY[name] for name in AGENTS}, deps),
            effects=effects,
        )
        slots = FairSemaphore(settings.max_concurrent_steps, settings.scheduling)
        yield Engine(executors=executors(ports), slots=slots)


@asynccontextmanager
async def open_workflows(
    settings: WorkflowSettings, pool: Pool, *, runs: Runs, engine: Engine, checkpointer: Checkpointer
) -> AsyncIterator[Workflows]:
    """Keep workflows going until the context closes; the runs in progress must have been drained by then."""

    def compiled(definition: Definition) -> CompiledGraph:
        graph = compile_workflow(definition, engine, checkpointer)
        # Threads name the graph that began them: all definitions are one.
        graph.name = WORKFLOW
        return graph

    compilations = WorkflowGraphs(compiled)
    store = WorkflowStore(pool, service=uuid4().hex, lease_seconds=settings.lease_seconds)
    keeper = WorkflowKeeper(store, compilations, runs, settings)
    async with background(keeper.run(), "workflow-keeper"):
        try:
            yield Workflows(
                store=store, graphs=compilations, keeper=keeper, slots=engine.slots, agents=AGENTS
            )
        finally:
            await keeper.aclose()
