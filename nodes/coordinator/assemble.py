"""What each agent that works on the message is told, searched for by its own retrieval strategy."""

import asyncio
import json
from collections.abc import Sequence
from typing import Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from agents.spec import AgentSpec
from core.context import Context
from core.memory import STRATEGIES, Edge, Scope
from core.packing import PackedContext, pack_context
from nodes.coordinator.briefing import sections
from nodes.coordinator.state import CoordinatorState, Dispatch, SpecialistInput
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.contact import extract_relations
from nodes.shared.memory import MemoryUse, RetrievedMemory, retrieve
from tools.relations import RelationRecorder

Next: TypeAlias = Command[Literal["specialist"]]


def assemble(deps: Deps) -> Node[CoordinatorState, Next]:
    """Node: brief the agents that have not tried yet. Memory that is away or late is done without.

    What the CRM says of the customer goes into memory's graph meanwhile.
    """
    relations = RelationRecorder(deps.memory)

    async def assemble(state: CoordinatorState, *, runtime: Runtime[Context]) -> Next:
        tried = {attempt["agent"] for attempt in state["attempts"]}
        chosen = [each for each in state["dispatched"] if each["agent"] not in tried]
        specs = [deps.agents.specs[each["agent"]] for each in chosen]
        scope = Scope(get_run_context(runtime).tenant, state["contact_id"])
        asked = [(spec.retrieval, each["part"]) for spec, each in zip(specs, chosen, strict=True)]
        # Beside the search, so that nobody waits for it alone.
        found, _ = await asyncio.gather(
            retrieve(deps.memory, scope, asked), relations.record(scope, _seen(state["customer"]))
        )
        packed = await asyncio.to_thread(_packed, deps, state, list(zip(specs, chosen, strict=True)), found)
        sent = [
            SpecialistInput(
                agent=each["agent"],
                task=each["part"],
                contact_id=state["contact_id"],
                background=one.background,
            )
            for each, one in zip(chosen, packed, strict=True)
        ]
        return Command(
            goto=[Send("specialist", each) for each in sent],
            update={
                "context": [*state["context"], *(one.record for one in packed)],
                "memory": MemoryUse(available=found.available, degraded=list(found.degraded), recorded=False),
            },
        )

    return assemble


def _seen(customer: str) -> list[Edge]:
    return extract_relations(json.loads(customer)) if customer else []


def _packed(
    deps: Deps,
    state: CoordinatorState,
    chosen: Sequence[tuple[AgentSpec, Dispatch]],
    found: RetrievedMemory,
) -> list[PackedContext]:
    """Packed to the budget; tokens are counted, which is work for a thread."""
    budget = deps.context_tokens
    return [
        pack_context(
            sections(
                state,
                spec,
                dispatched,
                hits=found.hits.get((spec.retrieval, dispatched["part"]), ()),
                facts=found.facts,
                shares=(budget // 2, STRATEGIES[spec.retrieval].token_budget),
            ),
            budget=budget,
            agent=spec.name,
            strategy=spec.retrieval,
        )
        for spec, dispatched in chosen
    ]
