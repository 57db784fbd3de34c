"""Open what the Agent Server API serves beside runs, and schedule its passes."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from langgraph.types import Checkpointer

from core.embeddings import Embedder
from core.postgres import Pool
from graphs.registry import REGISTRY
from service.agent_server.assistants import AssistantStore
from service.agent_server.crons import PASS_SECONDS, CronRunner, CronStore
from service.agent_server.expiry import Expiry
from service.agent_server.items import ItemStore, TenantStore
from service.agent_server.run_builder import RegisterWebhook, RunBuilder
from service.agent_server.threads import ThreadStore
from service.conversations.hooks import RunHooks
from service.erasure import Erasure
from service.queue import TaskQueue
from service.runs.executor import RunExecutor
from service.runs.graphs import ForeignGraph, GraphCatalogue, build_catalogue
from service.runs.request import CompiledGraph
from service.runs.store import RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServer:
    """What the API serves; the attributes are those of :class:`service.lifespan.Service`."""

    catalogue: GraphCatalogue
    assistants: AssistantStore
    threads: ThreadStore
    run_builder: RunBuilder
    crons: CronStore
    items: ItemStore


def open_agent_server(
    stack: AsyncExitStack,
    pool: Pool,
    graphs: Mapping[str, CompiledGraph],
    foreign: Sequence[ForeignGraph],
    *,
    hooks: RunHooks,
    checkpointer: Checkpointer,
    embedder: Embedder,
    register_webhook: RegisterWebhook,
) -> AgentServer:
    """Return what the API serves.

    Args:
        stack: Closes the embedder.
        pool: The service's pool.
        graphs: The registry's graphs, compiled.
        foreign: Others that are served beside them.
        hooks: What happens around runs of our own graphs.
        checkpointer: The saver of the foreign ones.
        embedder: Embeds the items of the store.
        register_webhook: Returns the endpoint of a webhook that a run names.
    """
    stack.push_async_callback(embedder.aclose)
    items = ItemStore(pool, embedder)
    catalogue = build_catalogue(
        graphs, REGISTRY, tuple(foreign), checkpointer=checkpointer, store=TenantStore(items)
    )
    assistants = AssistantStore(pool, catalogue)
    return AgentServer(
        catalogue=catalogue,
        assistants=assistants,
        threads=ThreadStore(pool),
        run_builder=RunBuilder(assistants, hooks, register_webhook),
        crons=CronStore(pool),
        items=items,
    )


def schedule_agent_server(
    api: AgentServer, queue: TaskQueue, runs: RunExecutor, *, run_store: RunStore, erasure: Erasure
) -> None:
    """Register the passes: crons that are due, and what is over."""
    pool = run_store.pool
    crons = CronRunner(pool, runs, run_store, api.run_builder)
    queue.every("crons", crons.run_pass, seconds=PASS_SECONDS)
    expiry = Expiry(pool, queue, runs, erasure, threads=api.threads, items=api.items)
    expiry.schedule()
    runs.dispose = expiry.defer_erasure
