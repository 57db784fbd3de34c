"""For any notation of a number or a day: it is found again, and a piece of a source needs no other source."""

from datetime import date
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from core.quantities import find_quantities, index_quantities
from core.texts import LANGUAGES, format_date, name_month
from nodes.shared.citations import Grounding, collect_sources, find_citations, find_unsupported
from tests.support.profiles import examples

DAYS = st.dates(date(1990, 1, 1), date(2090, 12, 31))


@st.composite
def notations_of_a_number(draw: st.DrawFn) -> list[str]:
    """The same number, whole or with cents, in every notation that is accepted."""
    number = draw(st.integers(13, 9_999_999))
    if number % 1000 == 0:
        scaled = [f"{number // 1000}K", f"{number // 1000} mil", f"{number // 1000} thousand"]
    else:
        scaled = []
    cents = draw(st.integers(1, 99))
    if draw(st.booleans()):
        english = f"{number:,}"
        whole = [str(number), english, english.replace(",", "."), english.replace(",", "\u202f"), *scaled]
        return [*whole, f"{number}.00", f"R$ {english.replace(',', '.')},00", f"${english}", f"{number}%"]
    english = f"{number:,}.{cents:02}"
    portuguese = english.translate(str.maketrans(",.", ".,"))
    return [f"{number}.{cents:02}", f"{number},{cents:02}", english, f"€{portuguese}", f"{english} USD"]


def notations_of_a_day(day: date) -> list[str]:
    spoken = [format_date(day, language) for language in LANGUAGES]
    month = name_month(day.month, "en")
    return [
        *spoken,
        day.isoformat(),
        f"{month} {day.day}, {day.year}",
        f"{month[:3]} {day.day} {day.year}" if month not in {"March", "May"} else spoken[0],
        f"{day:%d/%m/%Y}",
        f"{day:%m/%d/%Y}",
        f"{day:%d.%m.%Y}",
    ]


VALUES = st.one_of(
    notations_of_a_number().flatmap(st.sampled_from),
    DAYS.flatmap(lambda day: st.sampled_from(notations_of_a_day(day))),
    st.sampled_from(["15:30", "3 pm", "10h", "13th", "v4.12.3", "INV-2026-1102", "ORD-7001", "24/7", "48h"]),
)
WORDS = st.sampled_from(["the", "plan", "of", "de", "costs", "until", "and", "on", "3", "mil", "days", "at"])
TEXTS = st.lists(st.one_of(WORDS, VALUES), min_size=1, max_size=12).map(" ".join)


@given(notations_of_a_number(), st.data())
@settings(max_examples=examples(200))
def test_a_number_is_found_in_whatever_notation_a_source_holds_it(
    forms: list[str], data: st.DataObject
) -> None:
    stated, held = data.draw(st.sampled_from(forms)), data.draw(st.sampled_from(forms))
    sources = collect_sources([("get_invoices", [{"number": "INV-1", "note": f"It is {held}, they say."}])])
    assert find_unsupported(f"That makes {stated}.", sources, []) == []


@given(DAYS, st.data())
@settings(max_examples=examples(200))
def test_a_day_is_found_in_whatever_notation_a_source_holds_it(day: date, data: st.DataObject) -> None:
    forms = notations_of_a_day(day)
    held = data.draw(st.sampled_from([*forms, f"{day.isoformat()}T10:00:00Z"]))
    stated = data.draw(st.sampled_from(forms))
    assert find_unsupported(f"It is due on {stated}.", [], [f"Due: {held}."]) == []


@given(st.integers(13, 9_999_999), st.integers(13, 9_999_999))
@settings(max_examples=examples(200))
def test_another_number_is_not_found(stated: int, held: int) -> None:
    missing = find_unsupported(f"That makes {stated}.", [], [f"It is {held}, they say."])
    assert missing == ([] if stated == held else [str(stated)])


@given(DAYS, DAYS)
@settings(max_examples=examples(200))
def test_another_day_is_not_found(stated: date, held: date) -> None:
    missing = find_unsupported(f"Due {format_date(stated, 'en')}.", [], [f"Due: {held.isoformat()}"])
    assert missing == ([] if stated == held else [format_date(stated, "en")])


@given(TEXTS, st.data())
@settings(max_examples=examples(400))
def test_a_piece_of_a_source_has_nothing_unsupported(text: str, data: st.DataObject) -> None:
    words = text.split(" ")
    start = data.draw(st.integers(0, len(words) - 1))
    piece = " ".join(words[start : data.draw(st.integers(start + 1, len(words)))])
    sources = collect_sources([("search_knowledge_base", [{"id": "kb-a", "title": "A", "body": text}])])
    assert find_unsupported(piece, sources, []) == []


@given(TEXTS, st.lists(TEXTS, max_size=3), st.lists(st.sampled_from(["kb-0", "kb-1", "kb-9"]), max_size=3))
@settings(max_examples=examples(100))
def test_only_what_was_retrieved_is_cited_and_each_source_once(
    answer: str, bodies: list[str], claimed: list[str]
) -> None:
    articles = [{"id": f"kb-{number}", "title": "A", "body": body} for number, body in enumerate(bodies)]
    cited = find_citations(answer, collect_sources([("search_knowledge_base", articles)]), claimed=claimed)
    ids = [citation["id"] for citation in cited]
    assert ids == sorted(set(ids))
    assert {each["id"] for each in articles} >= set(ids) >= {each["id"] for each in articles} & set(claimed)


@given(st.decimals(0, 10**7, places=2))
@settings(max_examples=examples(100))
def test_a_number_as_a_json_value_is_found(value: Decimal) -> None:
    sources = collect_sources([("get_invoices", [{"number": "INV-1", "amount": float(value)}])])
    assert find_unsupported(f"{value:,.2f} USD", sources, []) == []


@given(st.text(max_size=60))
@settings(max_examples=examples(300))
def test_any_text_can_be_read(text: str) -> None:
    grounding = Grounding(citations=[], unsupported=find_unsupported(text, [], [text]))
    assert grounding["unsupported"] == []
    assert all(quantity.readings for quantity in find_quantities(text))
    assert isinstance(index_quantities(text), set)
