"""The graphs for LangGraph Studio: compiled without a checkpointer, because the dev server brings its own.

``langgraph.json`` names attributes of this module; both are made from the registry.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue

from core.concurrency import FairSemaphore
from core.errors import StepFailed
from core.memory import NoMemory
from core.models import build_chat_models
from core.outgoing import GuardedTransport
from core.settings import Settings
from graphs.agent_registry import build_agent_registry
from graphs.registry import REGISTRY, STEP_GRAPHS
from graphs.spec import GraphSpec
from graphs.workflow_agents import RegistryGraphs
from nodes.deps import Deps
from nodes.workflow.executors import build_executors
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient, create_http_client
from workflows.http import WorkflowHttpClient
from workflows.ports import Engine, StepPorts


class StudioGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A graph that fills in the defaults of its input, as the routes of the service do.

    The dev server passes the input as it was entered. A field that is left out would be missing in the first
    run of a thread, and would keep the last run's value in a later one.
    """

    def astream(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 - LangGraph's name
        """Validate the input and run the graph; a ``Command`` or ``None`` is passed on."""
        if isinstance(input, Mapping):
            input = REGISTRY[self.name].validate_input(input)  # noqa: A001 - LangGraph's name
        return super().astream(input, *args, **kwargs)


class NoDatabases:
    """The :class:`workflows.ports.SqlReader` of Studio, which opens no database."""

    async def fetch_rows(
        self,
        connection: str,
        sql: str,  # noqa: ARG002
        parameters: Mapping[str, JsonValue],  # noqa: ARG002
        *,
        limit: int,  # noqa: ARG002
        timeout: float,  # noqa: ARG002
    ) -> list[dict[str, JsonValue]]:
        """Fail the step."""
        raise StepFailed(
            f"Studio opens no databases, so {connection!r} cannot be read; run the workflow at /v1/workflows"
        )


def build_deps(settings: Settings) -> Deps:
    """Return what the graphs need, without a database: there is no memory, and effects are not recorded."""
    # Without a real CRM, the dev server itself serves the development CRM (see service/cli/studio.py).
    base = settings.crm.api_base or f"http://127.0.0.1:{settings.server.studio_port}/crm"
    crm_http = create_http_client(settings.crm, base)
    crm = CrmClient(crm_http, settings.crm)
    memory = NoMemory("Studio has no memory; the service has")
    tools = {
        **crm_tools(crm, approve_messages_from=settings.approvals.message_risk, memory=memory),
        **memory_tools(memory),
    }
    deps = Deps(
        models=build_chat_models(settings.models, settings.features),
        tools=tools,
        crm=crm,
        agents=build_agent_registry(settings, tools),
        memory=memory,
        context_tokens=settings.context.tokens,
        review_unsupported=settings.approvals.unsupported == "review",
    )
    guard = GuardedTransport(settings.workflows.hosts)
    http = httpx.AsyncClient(transport=guard, trust_env=False)
    ports = StepPorts(
        http=WorkflowHttpClient(
            http, guard, crm_http, settings.workflows.secret_values, settings.workflows.allowed_crm_requests
        ),
        sql=NoDatabases(),
        graphs=RegistryGraphs(STEP_GRAPHS, deps),
    )
    slots = FairSemaphore(settings.workflows.max_concurrent_steps, settings.workflows.scheduling)
    return replace(deps, workflows=Engine(executors=build_executors(ports), slots=slots))


def compile_graph(spec: GraphSpec, deps: Deps) -> StudioGraph:
    """Compile a graph as the dev server expects it."""
    return StudioGraph(**vars(spec.build(deps).compile(name=spec.name)))


# One attribute per graph, as langgraph.json names them.
_deps = build_deps(Settings.load())
globals().update({spec.name: compile_graph(spec, _deps) for spec in REGISTRY.values()})
