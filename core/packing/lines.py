"""Memories and facts as the lines an agent reads, each with its date and its source."""

from collections.abc import Collection, Iterable
from typing import Final

from core.memory import Fact, Hit
from core.packing.pack import Item
from core.quoting import cut, on_one_line

# Ids of the messages that hold a session's summary, so that a search tells them from what was said.
SUMMARY_PREFIX: Final = "summary:"
_MEMORY_CHARACTERS: Final = 1_200
_ID_CHARACTERS: Final = 8


def memory_items(hits: Iterable[Hit], *, known: Collection[str]) -> tuple[Item, ...]:
    """Memories, best first, without those the conversation shows anyway."""
    return tuple(Item(hit.id, _memory(hit)) for hit in hits if hit.id not in known)


def fact_items(facts: Iterable[Fact]) -> tuple[Item, ...]:
    """What is believed, in an order that does not change with what is asked."""
    ordered = sorted(facts, key=lambda fact: (fact.subject, fact.predicate, fact.scope_key, fact.id))
    return tuple(Item(fact.id, _fact(fact)) for fact in ordered)


def is_summary(hit: Hit) -> bool:
    """Whether it is the summary of a session."""
    return hit.kind == "summary" or hit.id.startswith(SUMMARY_PREFIX)


def _memory(hit: Hit) -> str:
    kind = "summary" if is_summary(hit) else hit.kind
    source = f"{kind} of session {hit.session_id[:_ID_CHARACTERS]}" if hit.session_id else kind
    return f"- [{hit.at.date().isoformat()}, {source}] {on_one_line(cut(hit.text, _MEMORY_CHARACTERS))}"


def _fact(fact: Fact) -> str:
    of = f" ({fact.scope_key})" if fact.scope_key else ""
    said = on_one_line(cut(f"{fact.subject} {fact.predicate}{of}: {fact.object}", _MEMORY_CHARACTERS))
    since, source = fact.valid_from.date().isoformat(), fact.source_message_id[:_ID_CHARACTERS]
    return f"- {said} [since {since}, message {source}]"
