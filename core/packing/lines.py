"""Memories, facts and messages as the lines an agent reads, each with its date and its source."""

from collections.abc import Collection, Iterable
from typing import Final

from core.memory import Fact, Hit, Message
from core.packing import Item
from core.texts import cut, join_lines

# Ids of the messages that hold a session's summary, so that a search tells them from what was said.
SUMMARY_PREFIX: Final = "summary:"
_MEMORY_CHARACTERS: Final = 1_200
_ID_CHARACTERS: Final = 8


def memory_items(hits: Iterable[Hit], *, known: Collection[str]) -> tuple[Item, ...]:
    """Memories, best first, without those the conversation shows anyway."""
    return tuple(Item(hit.id, _memory(hit)) for hit in hits if hit.id not in known)


def beside(hits: Iterable[Hit], facts: Iterable[Fact]) -> tuple[Hit, ...]:
    """The hits without the facts that are told anyway."""
    told = {fact.id for fact in facts}
    return tuple(hit for hit in hits if hit.kind != "fact" or hit.id not in told)


def statement_text(subject: str, predicate: str, scope_key: str, object: str) -> str:  # noqa: A002 - its name
    """A fact in words."""
    of = f" ({scope_key})" if scope_key else ""
    return f"{subject} {predicate}{of}: {object}"


def message_items(said: Iterable[Message]) -> tuple[Item, ...]:
    """What was said, oldest first, each with its day and who said it."""
    return tuple(Item(message.id, _said(message)) for message in said)


def fact_items(facts: Iterable[Fact]) -> tuple[Item, ...]:
    """What is believed, in an order that does not change with what is asked."""
    ordered = sorted(facts, key=lambda fact: (fact.subject, fact.predicate, fact.scope_key, fact.id))
    return tuple(Item(fact.id, _fact(fact)) for fact in ordered)


def is_summary(hit: Hit) -> bool:
    """Whether it is the summary of a session."""
    return hit.kind == "summary" or is_summary_id(hit.id)


def is_summary_id(message_id: str) -> bool:
    """Whether a message is the summary of a session."""
    return message_id.startswith(SUMMARY_PREFIX)


def _memory(hit: Hit) -> str:
    kind = "summary" if is_summary(hit) else hit.kind
    source = f"{kind} of session {hit.session_id[:_ID_CHARACTERS]}" if hit.session_id else kind
    return f"- [{hit.at.date().isoformat()}, {source}] {join_lines(cut(hit.text, _MEMORY_CHARACTERS))}"


def _said(message: Message) -> str:
    text = join_lines(cut(message.text, _MEMORY_CHARACTERS))
    return f"- [{message.at.date().isoformat()}, {message.role}] {text}"


def _fact(fact: Fact) -> str:
    stated = statement_text(fact.subject, fact.predicate, fact.scope_key, fact.object)
    said = join_lines(cut(stated, _MEMORY_CHARACTERS))
    since, source = fact.valid_from.date().isoformat(), fact.source_message_id[:_ID_CHARACTERS]
    return f"- {said} [since {since}, message {source}]"
