"""What a prompt is told of a contact, of everything memory has, packed to a budget of tokens."""

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

# What is looked up, before the budget decides.
MOST_HITS: Final = 20
MOST_RECENT: Final = 40
MOST_FACTS: Final = 40
LARGEST_BUDGET: Final = 100_000


def budget_of(strategy: StrategyName, token_budget: int | None) -> int:
    """Most tokens.

    Raises:
        MemoryRefused: The strategy is not known, or the budget is none.
    """
    if strategy not in STRATEGIES:
        raise MemoryRefused(f"strategy {strategy!r} is not known; there are {', '.join(STRATEGIES)}")
    budget = STRATEGIES[strategy].token_budget if token_budget is None else token_budget
    if not 1 <= budget <= LARGEST_BUDGET:
        raise MemoryRefused(f"token_budget must be from 1 to {LARGEST_BUDGET}")
    return budget


async def assembled(
    found: SearchResult,
    facts: Sequence[Fact],
    recent: Sequence[Message],
    *,
    budget: int,
) -> AssembledContext:
    """Pack what was found: first summaries, the newest messages and memories, then facts.

    Args:
        found: By the question, best first.
        facts: That hold.
        recent: The newest messages, oldest of them first.
        budget: Most tokens.
    """
    said = [message for message in recent if not is_summary_id(message.id)]
    shown = {message.id for message in said}
    hits = exclude_facts(found.hits, facts[:MOST_FACTS])
    summaries = filter(is_summary, hits)
    memories = filterfalse(is_summary, hits)
    told = [
        Section(name="facts", items=build_fact_items(facts[:MOST_FACTS])),
        Section(name="summary", items=build_memory_items(summaries, known=()), share=budget // 4),
        Section(name="conversation", items=build_message_items(said), first_in="end", share=budget // 2),
        Section(name="memories", items=build_memory_items(memories, known=shown)),
    ]
    # Tokens are counted, which is work for a thread.
    packed: PackedContext = await asyncio.to_thread(
        pack_context, told, budget=budget, agent="", strategy=found.strategy
    )
    included = {section["section"]: frozenset(section["included"]) for section in packed.record["sections"]}
    remembered = included.get("memories", frozenset()) | included.get("summary", frozenset())
    return AssembledContext(
        text=packed.background,
        tokens=packed.record["tokens"],
        token_budget=budget,
        strategy=found.strategy,
        sections=_sections(packed.record),
        hits=tuple(hit for hit in hits if hit.id in remembered),
        facts=tuple(fact for fact in facts if fact.id in included.get("facts", ())),
        degraded=found.degraded,
    )


def _sections(record: ContextRecord) -> tuple[ContextSection, ...]:
    return tuple(
        ContextSection(
            name=section["section"],
            tokens=section["tokens"],
            included=tuple(section["included"]),
            omitted=tuple(OmittedItem(each["id"], each["why"]) for each in section["dropped"]),
        )
        for section in record["sections"]
    )
