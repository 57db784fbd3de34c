"""Which sources an answer is said to rest on, and what it states without one."""

from typing import Any

import pytest

from core.quantities import find_quantities
from nodes.shared.citations import collect_sources, find_citations, find_unknown_claims, find_unsupported

EXPORTS = {
    "id": "kb-exports",
    "title": "Handling Large Exports",
    "body": "Exporting more than 40K records can fail with an Error 500. Send POST /exports/batch with a "
    "limit of 10,000 records until the cursor comes back null.",
}
LIMITS = {
    "id": "kb-limits",
    "title": "API rate limits",
    "body": "A key may send 300 requests a minute. An Error 500 does not count.",
}
PHONES = {"id": "ORD-7001", "item": "Four desk phones", "status": "delayed", "expected_at": "2026-11-13"}
PAPER = {"id": "ORD-6954", "item": "Workshop paper", "status": "delivered", "expected_at": "2026-09-02"}
INVOICE = {"number": "INV-2026-1102", "amount": 640.0, "currency": "USD", "due_at": "2026-12-02T06:00:00Z"}
CONTACT = {"name": "Laura Bennett", "subscription": {"plan": "Pro", "renews_on": "2027-03-01"}}
RESULTS: list[tuple[str, Any]] = [
    ("search_knowledge_base", [EXPORTS, LIMITS]),
    ("get_orders", [PHONES, PAPER]),
    ("get_invoices", [INVOICE]),
    ("get_contact", CONTACT),
    ("check_service_status", {"status": "operational", "components": {"WhatsApp channel": "operational"}}),
    ("recall", [{"what": "Laura asked for 12 seats at 31 euros.", "date": "2026-05-04", "source": "note"}]),
    ("create_engineering_ticket", {"ticket_id": "ENG-4711"}),
]


def cite(answer: str, **more: Any) -> list[str]:
    return [each["id"] for each in find_citations(answer, collect_sources(RESULTS), **more)]


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("Your desk phones (ORD-7001) are late.", ["ORD-7001"]),
        ("The delivery is expected on 13 de novembro de 2026.", ["ORD-7001"]),
        ("A fatura de US$ 640,00 está em aberto.", ["INV-2026-1102"]),
        ("From the article “Handling large exports”.", ["kb-exports"]),
        ("Acima de 40 mil registros, use lotes.", ["kb-exports"]),
        ("Send POST /exports/batch with a limit and repeat it.", ["kb-exports"]),
        ("Your plan renews on 1 March 2027.", ["get_contact"]),
        ("WhatsApp channel: running.", ["check_service_status"]),
        ("You once asked for 31 euros a seat.", ["recall"]),
        ("I opened ticket ENG-4711.", ["ENG-4711"]),
        ("Both are known: ORD-7001 and INV-2026-1102.", ["ORD-7001", "INV-2026-1102"]),
        ("I do not know.", []),
    ],
)
def test_an_answer_cites_what_it_takes_something_from(answer: str, cited: list[str]) -> None:
    assert cite(answer) == cited


def test_a_citation_says_what_it_is_and_where_it_is_from() -> None:
    [order] = find_citations("ORD-7001 is late.", collect_sources(RESULTS))
    assert order == {"id": "ORD-7001", "kind": "order", "title": "Four desk phones", "tool": "get_orders"}


def test_what_two_sources_hold_is_attributed_to_the_one_that_shares_more() -> None:
    assert cite("After an Error 500, send at most 300 requests a minute.") == ["kb-limits"]


def test_repeating_the_customers_words_cites_nothing() -> None:
    assert cite("I am sorry about the Error 500.", message="I get Error 500") == []


def test_a_claimed_source_is_cited_if_it_was_retrieved() -> None:
    assert cite("Use batches.", claimed=["KB-exports ", "kb-invented"]) == ["kb-exports"]
    assert find_unknown_claims(["kb-invented", "ORD-7001"], collect_sources(RESULTS)) == ["kb-invented"]


def test_a_failed_or_empty_result_is_no_source() -> None:
    assert collect_sources([("get_orders", []), ("get_contact", None), ("recall", "")]) == []


def test_an_agent_that_was_consulted_passes_its_sources_on_but_not_what_it_made_up() -> None:
    [order] = find_citations("ORD-7001", collect_sources(RESULTS))
    answer = {
        "answer": "It arrives on 13 November 2026 for $99.",
        "citations": [order],
        "unsupported": ["$99"],
    }
    sources = collect_sources([("consult_agent", answer)])
    assert find_citations("It arrives on 2026-11-13.", sources) == [order]
    assert find_unsupported("It arrives on 2026-11-13 and costs $99.", sources, []) == ["$99"]


@pytest.mark.parametrize(
    ("answer", "unsupported"),
    [
        ("We refund $1,234.50 within 5 days.", ["$1,234.50", "5 days"]),
        ("It costs R$ 640,00 or USD 640.", []),
        ("It costs 649 USD.", ["649 USD"]),
        ("It arrives on 14 November 2026.", ["14 November 2026"]),
        ("It arrives on the 13th, in November 2026.", []),
        ("ORD-7002 is late.", ["ORD-7002"]),
        ("Call at 3 pm.", ["3 pm"]),
        ("1. Open it.\n2. Close it.\n13. Wait.", []),
        ("There are 2 ways, in 3 steps.", []),
        ("There are 17 ways.", ["17"]),
        ("You get 10% off.", ["10%"]),
        ("Up to 10.000 records, UTF-8 encoded.", []),
    ],
)
def test_what_no_source_holds_is_listed_as_it_is_written(answer: str, unsupported: list[str]) -> None:
    assert find_unsupported(answer, collect_sources(RESULTS), []) == unsupported


def test_the_message_and_the_background_support_an_answer_too() -> None:
    known = ["We are 17 people, can we start on 3 May?", "Discount: up to 15 % for teams."]
    assert find_unsupported("For 17 people, 15% off from 3 May 2027.", [], known) == []


@pytest.mark.parametrize(
    "piece", ["1-", "a1_", "_", "1", "1,", "1.a", "A1/", "de ", "3 de ", "10:", "May ", "1 000 ", "R$"]
)
def test_a_long_text_that_repeats_itself_can_be_read(piece: str) -> None:
    text = piece * 4_000
    assert find_unsupported(f"{text},5", [], [f"{text},5"]) == []


@pytest.mark.parametrize(
    ("text", "as_written"),
    [
        ("from 10-15 minutes or a 15-minute call", ["10", "15 minutes", "15-minute"]),
        ("v4.12.3 and 2.4", ["v4.12.3", "2.4"]),
        ("at 15h30 or 3:30 p.m.", ["15h30", "3:30 p.m."]),
        ("2026-11-03T15:00:00Z", ["2026-11-03", "15:00:00Z"]),
        ("03.11.2026 and 03/11", ["03.11.2026", "03/11"]),
        ("31 February 2026", ["31", "February 2026"]),
        ("1.000.000 or 1.2M", ["1.000.000", "1.2M"]),
    ],
)
def test_a_text_is_read_in_one_way(text: str, as_written: list[str]) -> None:
    assert [quantity.text for quantity in find_quantities(text)] == as_written
