"""What an agent that works alone is told of its contact: one step, which several graphs have."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import filterfalse
from typing import Any, Final, Literal, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.memory import STRATEGIES, Scope, StrategyName
from core.packing import (
    ContextRecord,
    Item,
    PackedContext,
    Section,
    build_fact_items,
    build_memory_items,
    is_summary,
    pack_context,
)
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.contact import extract_relations, try_load_contact_profile
from nodes.shared.conversation import build_turn_items, select_spoken
from nodes.shared.memory import MemoryStatus, RetrievedMemory, retrieve
from tools.relations import RelationRecorder

# What an agent's background may have, and room beside it for the results of its siblings. The budget is
# in tokens; with the largest that can be set, and a caller's own background, this is less.
MOST_CHARACTERS: Final = 36_000
# Summaries of earlier sessions have this part of what memories have.
_SUMMARIES: Final = 2
# Of earlier turns, where the prompts show none.
_TOLD_TURNS: Final = 20


class Assembled(TypedDict):
    """The update: see :class:`nodes.shared.context.ContextState`."""

    known: str
    context: list[ContextRecord]
    memory: MemoryStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a graph's own prompts show, which is counted and not told again.

    Attributes:
        agent: Who is told, for the record.
        system: The system prompt.
        contact: The state's field with the contact as the CRM knows it; empty: the prompts do not show it.
        turns: How many of the thread's earlier messages the prompts show at most; 0: none.
    """

    agent: str
    system: str
    contact: str = ""
    turns: int = 0


def assemble(deps: Deps, shown: Shown) -> Node[Any, Assembled]:
    """Node: tell the agent what is known of its contact.

    Earlier turns, summaries of sessions, memories with dates and sources, facts and the CRM's profile are
    packed to the budget, beside what the caller gave. Memory or a CRM that is away or late is done without:
    the thread's own turns are the baseline, and the state says so. What the CRM says of the contact goes into
    memory's graph meanwhile.

    Args:
        deps: Memory, CRM and the budget.
        shown: What the graph's prompts show anyway.
    """
    relations = RelationRecorder(deps.memory)

    async def read(scope: Scope, state: Mapping[str, Any]) -> str:
        known = (
            state[shown.contact] if shown.contact else await try_load_contact_profile(deps, scope.contact_id)
        )
        if not known:
            return ""
        await relations.record(scope, extract_relations(known))
        return json.dumps(known, ensure_ascii=False)

    async def assemble(state: Mapping[str, Any], *, runtime: Runtime[Context]) -> Assembled:
        strategy: StrategyName = state.get("strategy", "general")
        scope = Scope(get_run_context(runtime).tenant, state["contact_id"])
        earlier, question = _turns(state["messages"])
        found, contact = await asyncio.gather(
            retrieve(deps.memory, scope, [(strategy, question)]), read(scope, state)
        )
        sections = [
            *_own(shown, state["known"], contact),
            _conversation(shown, earlier, deps.context_tokens // 2),
            *_remembered(found, {message.id for message in state["messages"]}, strategy),
        ]
        # Tokens are counted, which is work for a thread.
        packed: PackedContext = await asyncio.to_thread(
            pack_context, sections, budget=deps.context_tokens, agent=shown.agent, strategy=strategy
        )
        known = "\n\n".join(filter(None, (state["known"], packed.background)))
        return Assembled(
            known=known[: max(MOST_CHARACTERS, len(state["known"]))],
            context=[packed.record],
            memory=MemoryStatus(available=found.available, degraded=list(found.degraded)),
        )

    return assemble


def _turns(messages: Sequence[AnyMessage]) -> tuple[Sequence[AnyMessage], str]:
    """What was said before, and what is asked now; nothing, where the run was given no words."""
    if messages and isinstance(messages[-1], HumanMessage):
        return messages[:-1], messages[-1].text
    return messages, ""


def _own(shown: Shown, given: str, contact: str) -> list[Section]:
    """What there is without memory and earlier turns."""
    placed: Literal["fixed", "background"] = "fixed" if shown.contact else "background"
    return [
        Section(name="system", items=_one(shown.agent, shown.system), placed="fixed"),
        Section(name="given", items=_one("given", given), placed="fixed"),
        Section(name="customer", items=_one("profile", contact), placed=placed),
    ]


def _remembered(
    found: RetrievedMemory, known: Collection[str | None], strategy: StrategyName
) -> list[Section]:
    """What memory has, without what the thread shows."""
    hits = [hit for of_question in found.hits.values() for hit in of_question if hit.id not in known]
    summaries = build_memory_items(filter(is_summary, hits), known=())
    memories = build_memory_items(filterfalse(is_summary, hits), known=())
    share = STRATEGIES[strategy].token_budget
    return [
        Section(name="facts", items=build_fact_items(found.facts)),
        Section(name="summary", items=summaries, share=share // _SUMMARIES),
        Section(name="memories", items=memories, share=share),
    ]


def _conversation(shown: Shown, earlier: Sequence[AnyMessage], share: int) -> Section:
    """Earlier turns: the newest first, where there is no room for all."""
    if not shown.turns:
        told = build_turn_items(select_spoken(earlier, _TOLD_TURNS))
        return Section(name="conversation", items=told, first_in="end", share=share)
    said = select_spoken(earlier, shown.turns)
    items = tuple(Item(message.id or "", message.text) for message in said)
    return Section(name="conversation", items=items, first_in="end", share=share, placed="prompt")


def _one(name: str, text: str) -> tuple[Item, ...]:
    return (Item(name, text),) if text else ()
