"""What memory has for a message, within a time a customer does not notice."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Fact, Hit, Memory, Scope, StrategyName
from core.packing import exclude_facts

log = get_logger(__name__)

T = TypeVar("T")

# The first word of an answer waits for it. A search takes 20 to 60 ms; a memory that is away is known to be
# after three calls (see memory/circuit.py).
MEMORY_SECONDS = 1.5
MOST_HITS = 10
MOST_FACTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """What memory has.

    Attributes:
        hits: By what was asked, best first.
        facts: What is believed now.
        available: Whether every call was answered.
        degraded: What could not be used, with why.
    """

    hits: Mapping[tuple[StrategyName, str], tuple[Hit, ...]]
    facts: tuple[Fact, ...]
    available: bool
    degraded: tuple[str, ...]


async def retrieved(memory: Memory, scope: Scope, asked: Sequence[tuple[StrategyName, str]]) -> Retrieved:
    """Search for each question by its strategy, and read the facts, all at once.

    Args:
        memory: Where.
        scope: Whose memory.
        asked: Strategies and questions.

    Returns:
        What came in time. Nothing is raised for a memory that is away, slow, or refuses.
    """
    faults: list[str] = []
    searches = asyncio.gather(
        *(
            _in_time(memory.search(scope, question, strategy=strategy, limit=MOST_HITS), "search", faults)
            for strategy, question in asked
        )
    )
    facts, found = await asyncio.gather(_in_time(memory.list_facts(scope), "facts", faults), searches)
    told = tuple((facts or [])[:MOST_FACTS])
    results = {each: result for each, result in zip(asked, found, strict=True) if result is not None}
    degraded = [reason for result in results.values() for reason in result.degraded]
    return Retrieved(
        hits={each: exclude_facts(result.hits, told) for each, result in results.items()},
        facts=told,
        available=not faults,
        degraded=tuple(dict.fromkeys([*sorted(faults), *degraded])),
    )


async def _in_time(call: Awaitable[T], what: str, faults: list[str]) -> T | None:
    try:
        async with asyncio.timeout(MEMORY_SECONDS):
            return await call
    except (MemoryUnavailable, MemoryRefused) as error:
        reason = error.message
    except TimeoutError:
        reason = f"memory did not answer within {MEMORY_SECONDS:g} s"
    log.warning("memory_not_used", call=what, reason=reason)
    faults.append(f"{what}: {reason}")
    return None
