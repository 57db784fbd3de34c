"""Sections packed to a budget of tokens: what matters more goes in first, what is shown first stays first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.packing import (
    ContextRecord,
    DroppedItem,
    SectionName,
    SectionRecord,
    count_tokens,
    describe_token_counter,
)
from core.texts import cut, fence, make_storable

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
class Packed:
    """What there was room for.

    Attributes:
        background: The sections that are placed there.
        record: What was included and dropped.
    """

    background: str
    record: ContextRecord


def pack(sections: Sequence[Section], *, budget: int, agent: str, strategy: str) -> Packed:
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
    return Packed(background=make_storable("\n\n".join(shown)), record=record)


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
