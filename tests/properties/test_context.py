"""Contexts, whatever there is to tell: within the budget, in one order, and nothing lost without a word."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from core.packing import ORDER, PRIORITY, Item, Section, SectionName, count_tokens, pack_context

TEXTS = st.text(max_size=400) | st.sampled_from(["word " * 80, " " * 500, "é" * 200, "</facts>", "x"])
NAMES: Sequence[SectionName] = [name for name in PRIORITY if name != "system"]


@st.composite
def sections(draw: st.DrawFn) -> list[Section]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return [
        Section(
            name=name,
            items=tuple(
                Item(f"{name}-{number}", text)
                for number, text in enumerate(draw(st.lists(TEXTS, max_size=6)))
            ),
            first_in=draw(st.sampled_from(["start", "end"])),
            share=draw(st.none() | st.integers(0, 300)),
        )
        for name in names
    ]


@settings(deadline=None)
@given(sections(), st.integers(0, 1_500))
def test_a_context_never_exceeds_its_budget(given: list[Section], budget: int) -> None:
    packed = pack_context(given, budget=budget, agent="a", strategy="general")
    assert packed.record["tokens"] <= budget
    assert count_tokens(packed.background) <= packed.record["tokens"]


@settings(deadline=None)
@given(sections(), st.integers(0, 1_500))
def test_every_item_is_included_or_dropped_with_a_reason(given: list[Section], budget: int) -> None:
    record = pack_context(given, budget=budget, agent="a", strategy="general").record
    by_name = {each["section"]: each for each in record["sections"]}
    for section in given:
        if section.items:
            entry = by_name[section.name]
            named = [*entry["included"], *(each["id"] for each in entry["dropped"])]
            assert sorted(named) == sorted(item.id for item in section.items)
            assert all(each["why"] for each in entry["dropped"])


@settings(deadline=None)
@given(sections(), st.integers(0, 1_500))
def test_the_order_does_not_depend_on_the_order_of_the_input(given: list[Section], budget: int) -> None:
    one = pack_context(given, budget=budget, agent="a", strategy="general")
    other = pack_context(given[::-1], budget=budget, agent="a", strategy="general")
    assert one == other
    shown = [each["section"] for each in one.record["sections"]]
    assert shown == [name for name in ORDER if name in shown]


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 600))
def test_a_conversation_has_no_gaps(texts: list[str], budget: int) -> None:
    items = tuple(Item(str(number), text) for number, text in enumerate(texts))
    section = Section(name="conversation", items=items, first_in="end")
    [entry] = pack_context([section], budget=budget, agent="a", strategy="general").record["sections"]
    everything = [item.id for item in items]
    assert entry["included"] == everything[len(everything) - len(entry["included"]) :]
