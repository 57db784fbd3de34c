"""Sections packed to a budget of tokens: what matters more goes in first, what is shown first stays first."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from core.embeddings.local import token_count, why_unavailable
from core.memory import Fact, Hit, Message
from core.texts import cut, fence, join_lines, make_storable

SectionName: TypeAlias = Literal[
    "system", "given", "customer", "facts", "summary", "conversation", "memories", "message", "attempts"
]


class DroppedItem(TypedDict):
    """Something that is not in the context."""

    id: str
    why: str


class SectionRecord(TypedDict):
    """One section: the ids of what is in it, in the order they stand, and what is not."""

    section: SectionName
    tokens: int
    included: list[str]
    dropped: list[DroppedItem]


class ContextRecord(TypedDict):
    """An agent's context."""

    agent: str
    strategy: Annotated[str, Field(description="The retrieval strategy memory was searched with")]
    budget: Annotated[int, Field(description="Most tokens there may be")]
    tokens: Annotated[int, Field(description="Those there are, counted by `counter`")]
    counter: str
    sections: Annotated[list[SectionRecord], Field(description="In the order they stand in the prompt")]


# Who gets room first.
PRIORITY: Final[Sequence[SectionName]] = (
    "system", "given", "message", "attempts", "summary", "conversation", "memories", "facts", "customer",
)  # fmt: skip
# How they stand, what changes least first: the same prefix from turn to turn is what a provider caches.
ORDER: Final[Sequence[SectionName]] = (
    "system", "given", "customer", "facts", "summary", "conversation", "memories", "message", "attempts",
)  # fmt: skip
# Of one item; a longer one loses its end, and says so.
ITEM_CHARACTERS: Final = 8_000
# Of what is dropped, this many are named.
_MOST_NAMED: Final = 30
_LINE_BREAK: Final = 1

OVER_BUDGET: Final = "no room in the context's budget"
OVER_SHARE: Final = "no room in the section's share"
OLDER: Final = "older than one there was no room for"


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of a section: all of it is shown, or nothing."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Pieces of one kind.

    Attributes:
        name: Its name, which is also its mark in the prompt.
        items: In the order they are shown.
        first_in: Which end has priority: ``start`` where the best come first, ``end`` where the newest come
            last. Of those, none is shown without all that are newer.
        share: Most tokens it takes; None: the whole budget.
        placed: Who shows it: the ``background``; the prompt, as far as there is room (``prompt``); or the
            prompt, whatever room there is (``fixed``), such as the system prompt, without which there is no
            agent.
    """

    name: SectionName
    items: tuple[Item, ...]
    first_in: Literal["start", "end"] = "start"
    share: int | None = None
    placed: Literal["background", "prompt", "fixed"] = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedContext:
    """What there was room for.

    Attributes:
        background: The sections that are placed there.
        record: What was included and dropped.
    """

    background: str
    record: ContextRecord


def pack_context(sections: Sequence[Section], *, budget: int, agent: str, strategy: str) -> PackedContext:
    """Fill the budget by priority.

    What is ``fixed`` is counted and always there; what it leaves is for the others.

    Args:
        sections: Each name once.
        budget: Most tokens.
        agent: For the record.
        strategy: For the record.
    """
    left = budget
    by_name = {section.name: section for section in sections}
    chosen: dict[SectionName, tuple[Sequence[Item], SectionRecord]] = {}
    for name in PRIORITY:
        if name in by_name and by_name[name].items:
            chosen[name] = _fill(by_name[name], left)
            left -= chosen[name][1]["tokens"]
    shown = [
        fence(name, "\n".join(item.text for item in chosen[name][0]))
        for name in ORDER
        if name in chosen and chosen[name][0] and by_name[name].placed == "background"
    ]
    record = ContextRecord(
        agent=agent,
        strategy=strategy,
        budget=budget,
        tokens=sum(record["tokens"] for _, record in chosen.values()),
        counter=describe_token_counter(),
        sections=[chosen[name][1] for name in ORDER if name in chosen],
    )
    return PackedContext(background=make_storable("\n\n".join(shown)), record=record)


def _fill(section: Section, left: int) -> tuple[Sequence[Item], SectionRecord]:
    items = [Item(item.id, _as_shown(item.text, section)) for item in section.items]
    costs = [count_tokens(item.text) + _LINE_BREAK for item in items]
    if section.placed == "fixed":
        taken: Mapping[int, str] = dict.fromkeys(range(len(items)), "")
        spent = sum(costs)
    else:
        marks = count_tokens(fence(section.name, "")) + _LINE_BREAK
        taken = _taken(section, costs, left - marks)
        spent = sum(costs[number] for number, why in taken.items() if not why)
        spent += marks if any(not why for why in taken.values()) else 0
    kept = [item for number, item in enumerate(items) if not taken[number]]
    dropped = [
        DroppedItem(id=item.id, why=taken[number]) for number, item in enumerate(items) if taken[number]
    ]
    record = SectionRecord(
        section=section.name,
        tokens=spent,
        included=[item.id for item in kept],
        dropped=[*dropped[:_MOST_NAMED], *_unnamed(len(dropped) - _MOST_NAMED)],
    )
    return kept, record


def _as_shown(text: str, section: Section) -> str:
    """What is counted: what a checkpoint cannot keep is not shown, and a prompt shows its own texts whole."""
    return make_storable(cut(text, ITEM_CHARACTERS) if section.placed == "background" else text)


def _taken(section: Section, costs: Sequence[int], room: int) -> Mapping[int, str]:
    """Each item's number, and why it is dropped; empty: it is in."""
    share = room if section.share is None else min(room, section.share)
    order = range(len(costs)) if section.first_in == "start" else range(len(costs) - 1, -1, -1)
    why: dict[int, str] = {}
    spent = 0
    for number in order:
        if section.first_in == "end" and any(why.values()):
            why[number] = OLDER
        elif spent + costs[number] <= share:
            why[number] = ""
            spent += costs[number]
        else:
            why[number] = OVER_BUDGET if spent + costs[number] > room else OVER_SHARE
    return why


def _unnamed(count: int) -> Iterator[DroppedItem]:
    if count > 0:
        yield DroppedItem(id=f"and {count} more", why="as these")


# Ids of the messages that hold a session's summary, so that a search tells them from what was said.
SUMMARY_PREFIX: Final = "summary:"
_MEMORY_CHARACTERS: Final = 1_200
_ID_CHARACTERS: Final = 8


def build_memory_items(hits: Iterable[Hit], *, known: Collection[str]) -> tuple[Item, ...]:
    """Memories, best first, without those the conversation shows anyway."""
    return tuple(Item(hit.id, _memory(hit)) for hit in hits if hit.id not in known)


def exclude_facts(hits: Iterable[Hit], facts: Iterable[Fact]) -> tuple[Hit, ...]:
    """The hits without the facts that are told anyway."""
    told = {fact.id for fact in facts}
    return tuple(hit for hit in hits if hit.kind != "fact" or hit.id not in told)


def format_statement(subject: str, predicate: str, scope_key: str, object: str) -> str:  # noqa: A002 - its name
    """A fact in words."""
    of = f" ({scope_key})" if scope_key else ""
    return f"{subject} {predicate}{of}: {object}"


def build_message_items(said: Iterable[Message]) -> tuple[Item, ...]:
    """What was said, oldest first, each with its day and who said it."""
    return tuple(Item(message.id, _said(message)) for message in said)


def build_fact_items(facts: Iterable[Fact]) -> tuple[Item, ...]:
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
    stated = format_statement(fact.subject, fact.predicate, fact.scope_key, fact.object)
    said = join_lines(cut(stated, _MEMORY_CHARACTERS))
    since, source = fact.valid_from.date().isoformat(), fact.source_message_id[:_ID_CHARACTERS]
    return f"- {said} [since {since}, message {source}]"


# Where there is no tokenizer: bytes a token, on the careful side (English has 4 to 5, Portuguese 3 to 4).
_BYTES: Final = 3
# No text counts less: what a tokenizer makes one token of (a thousand spaces) is still sent.
_MOST_CHARACTERS: Final = 8


@cache
def describe_token_counter() -> str:
    """What is counted with, for the record."""
    return "bytes/3" if why_unavailable() else "xlm-roberta"


def count_tokens(text: str) -> int:
    """About how many tokens a model reads; at least one for each eight characters. 5 ms a page."""
    if not text:
        return 0
    if describe_token_counter() == "xlm-roberta":
        tokens = token_count(text)
    else:
        tokens = -(-len(text.encode("utf-8", "replace")) // _BYTES)
    return max(tokens, -(-len(text) // _MOST_CHARACTERS))
