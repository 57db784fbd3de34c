"""Assembled contexts: what the memory has on a question, packed into a token budget for a prompt."""

import asyncio
from collections.abc import Sequence
from itertools import filterfalse
from typing import Final

from core.errors import MemoryRefused
from core.memory import (
    STRATEGIES,
    AssembledContext,
    ContextSection,
    Fact,
    Message,
    OmittedItem,
    SearchResult,
    StrategyName,
)
from core.packing import (
    ContextRecord,
    PackedContext,
    Section,
    build_fact_items,
    build_memory_items,
    build_message_items,
    exclude_facts,
    is_summary,
    is_summary_id,
    pack_context,
)

# What is looked up, before the budget decides what is included.
MAX_HITS: Final = 20
MAX_RECENT: Final = 40
MAX_FACTS: Final = 40
MAX_TOKEN_BUDGET: Final = 100_000


def get_budget(strategy: StrategyName, token_budget: int | None) -> int:
    """Return the token budget: the given one, or else the strategy's.

    Raises:
        MemoryRefused: The strategy is unknown, or the budget is out of range.
    """
    if strategy not in STRATEGIES:
        raise MemoryRefused(f"strategy {strategy!r} is not known; there are {', '.join(STRATEGIES)}")
    budget = STRATEGIES[strategy].token_budget if token_budget is None else token_budget
    if not 1 <= budget <= MAX_TOKEN_BUDGET:
        raise MemoryRefused(f"token_budget must be from 1 to {MAX_TOKEN_BUDGET}")
    return budget


async def assemble_context(
    result: SearchResult,
    facts: Sequence[Fact],
    recent: Sequence[Message],
    *,
    budget: int,
) -> AssembledContext:
    """Pack facts, summaries, the newest messages and memories into a context.

    Args:
        result: What the search found, best first.
        facts: The facts that hold.
        recent: The newest messages, the oldest of them first.
        budget: The token budget.
    """
    conversation = [message for message in recent if not is_summary_id(message.id)]
    shown = {message.id for message in conversation}
    hits = exclude_facts(result.hits, facts[:MAX_FACTS])
    summaries = filter(is_summary, hits)
    memories = filterfalse(is_summary, hits)
    sections = [
        Section(name="facts", items=build_fact_items(facts[:MAX_FACTS])),
        Section(name="summary", items=build_memory_items(summaries, known=()), share=budget // 4),
        Section(
            name="conversation", items=build_message_items(conversation), first_in="end", share=budget // 2
        ),
        Section(name="memories", items=build_memory_items(memories, known=shown)),
    ]
    # In a thread, because counting tokens takes time.
    packed: PackedContext = await asyncio.to_thread(
        pack_context, sections, budget=budget, agent="", strategy=result.strategy
    )
    included = {section["section"]: frozenset(section["included"]) for section in packed.record["sections"]}
    memory_ids = included.get("memories", frozenset()) | included.get("summary", frozenset())
    return AssembledContext(
        text=packed.background,
        tokens=packed.record["tokens"],
        token_budget=budget,
        strategy=result.strategy,
        sections=_convert_sections(packed.record),
        hits=tuple(hit for hit in hits if hit.id in memory_ids),
        facts=tuple(fact for fact in facts if fact.id in included.get("facts", ())),
        degraded=result.degraded,
    )


def _convert_sections(record: ContextRecord) -> tuple[ContextSection, ...]:
    return tuple(
        ContextSection(
            name=section["section"],
            tokens=section["tokens"],
            included=tuple(section["included"]),
            omitted=tuple(OmittedItem(each["id"], each["why"]) for each in section["dropped"]),
        )
        for section in record["sections"]
    )
