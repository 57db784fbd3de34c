"""The rules a deal is held to: amounts, quotes, what supports a reading, when money is given away."""

from typing import Any

import pytest

from nodes.sales.changes import Offer, extract_offer, find_concession
from nodes.sales.evidence import Evidence, find_amounts, is_agreement, is_known, is_refusal, names_value
from nodes.sales.stages import build_stage_views, choose_next_stage
from nodes.sales.state import DealReading
from tools.crm.models import Objection, Opportunity, Qualification

KNOWN = Qualification(budget="b", authority="a", need="n", timeline="t")


def deal(**fields: Any) -> Opportunity:
    known = {"id": "OPP-1", "contact_id": "c", "title": "Seats", "stage": "qualification", "value": 10_800}
    dates = {"currency": "USD", "created_at": "2026-01-01", "updated_at": "2026-01-01", "version": 1}
    return Opportunity.model_validate({**known, **dates, **fields})


@pytest.mark.parametrize(
    ("text", "currency", "found"),
    [
        ("USD 10,800 a year", "USD", {10_800}),
        ("10.800,50 EUR or € 9,5", "EUR", {10_800.5, 9.5}),
        ("R$ 1.798,00 por mês, 2 números", "BRL", {1_798}),
        ("1 200 000 GBP for 20 users in 2027", "GBP", {1_200_000}),
        ("usd 10800", "USD", {10_800}),
        ("10,800 in 24 months", "USD", set()),
        ("EUR 10,800", "USD", set()),
    ],
)
def test_amounts_are_numbers_next_to_the_currency(text: str, currency: str, found: set[float]) -> None:
    assert find_amounts(text, currency) == found


def test_a_monthly_price_names_the_yearly_value() -> None:
    assert names_value("R$ 1.798,00 por mês", 21_576, "BRL")
    assert not names_value("R$ 1.798,00 por mês", 21_575, "BRL")


@pytest.mark.parametrize(
    ("words", "quote"),
    [
        ("Thanks.\nWe  accept the Proposal!", "we accept the proposal"),
        ("Yes.", "Yes"),
        ("Aceitamos a proposta. Até logo.", "Aceitamos a proposta"),
    ],
)
def test_an_unconditional_sentence_is_an_agreement(words: str, quote: str) -> None:
    assert is_agreement(words, quote)


@pytest.mark.parametrize(
    ("words", "quote"),
    [
        ("We don\u2019t accept it.", "accept it"),
        ("Não aceitamos.", "aceitamos"),
        ("We accept, unless the CFO objects.", "We accept"),
        ("Aceitamos se houver desconto.", "Aceitamos"),
        ("Shall we accept?", "we accept"),
        ("We will accept maybe.", "We will accept"),
        ("We accepted.", "We accept"),
        ("", ""),
        ("...", "."),
    ],
)
def test_negated_asked_or_conditional_sentences_are_no_agreement(words: str, quote: str) -> None:
    assert not is_agreement(words, quote)


def test_a_customer_declines_only_in_their_own_words() -> None:
    assert is_refusal("We will not buy.", "We will not buy.")
    assert not is_refusal("What if we do not buy?", "we do not buy")
    assert not is_refusal("Later.", "We will not buy.")
    assert not is_refusal("We like it.", "We like it.")


@pytest.mark.parametrize(
    "text", ["null", "N/A", "Unknown", "not known yet", "Not specified.", "não informado", "-", " ", "TBD"]
)
def test_placeholders_for_nothing_are_not_known(text: str) -> None:
    assert not is_known(text)


def test_a_fact_may_start_like_a_placeholder() -> None:
    assert is_known("Not more than 500 dollars")
    assert is_known("Nonessential spending is frozen until May")


def test_half_of_a_readings_words_must_be_in_the_evidence() -> None:
    evidence = Evidence(
        customer_words="Our CFO decides in March.", results={"solution": "The Enterprise plan fits."}
    )
    assert evidence.supports("The CFO")
    assert evidence.supports("Enterprise")
    assert not evidence.supports("The board of directors")
    assert evidence.is_result_of("solution", "Enterprise plan")
    assert not evidence.is_result_of("proposal", "Enterprise plan")


def test_the_value_of_an_offer_is_the_crms_unless_the_offer_names_another() -> None:
    silent = extract_offer(deal(), DealReading(why="", proposal="Seats.", value=1))
    named = extract_offer(deal(), DealReading(why="", proposal="Seats for USD 1.", value=1))
    assert silent is not None
    assert named is not None
    assert (silent.value, named.value) == (10_800, 1)
    assert extract_offer(deal(proposal="Seats."), DealReading(why="", proposal=" Seats. ")) is None


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        (Offer(terms="Paid yearly.", value=10_800), None),
        (Offer(proposal="Seats for USD 900 a month.", value=10_800), None),
        (Offer(proposal="Seats for USD 12,000.", value=12_000), None),
        (Offer(terms="Paid yearly.", value=10_800, discount_percent=0.5), "it takes 0.5 % off"),
        (Offer(proposal="Seats for USD 9,000.", value=9_000), "the value falls from 10,800.00 to 9,000.00"),
        (Offer(proposal="Seats for USD 9,000.", value=10_800), "none of its amounts is the deal's value"),
        (Offer(terms="One month free.", value=10_800), "money given away"),
        (Offer(terms="Com 5% de abatimento.", value=10_800), "money given away"),
    ],
)
def test_an_offer_that_gives_money_away_needs_a_person(offer: Offer, why: str | None) -> None:
    reason = find_concession(deal(), offer)
    assert reason is None if why is None else why in (reason or "")


def test_the_first_price_of_a_deal_needs_a_person() -> None:
    offer = Offer(proposal="Seats for USD 100.", value=100)
    assert find_concession(deal(value=0), offer) == "the CRM holds no value to compare it with"


def test_a_deal_advances_only_when_all_earlier_stages_have_evidence() -> None:
    everything: dict[str, Any] = {"needs": ["n"], "solution": "s", "proposal": "p", "terms": "t"}
    assert choose_next_stage(deal(), deal(**everything)) == "qualification"
    assert choose_next_stage(deal(), deal(qualification=KNOWN)) == "needs"
    assert choose_next_stage(deal(), deal(qualification=KNOWN, **everything)) == "negotiation"
    objected = deal(qualification=KNOWN, **everything, objections=[Objection(text="Dear")])
    assert choose_next_stage(deal(), objected) == "objections"
    assert choose_next_stage(deal(stage="negotiation"), objected) == "objections"


def test_the_stages_of_a_lost_deal_that_were_never_reached_are_skipped() -> None:
    lost = deal(stage="closed_lost", qualification=KNOWN, needs=["n"], close_reason="Too dear")
    assert [(view["name"], view["status"]) for view in build_stage_views(lost, ["needs"])] == [
        ("qualification", "skipped"),
        ("needs", "done"),
        ("solution", "skipped"),
        ("objections", "skipped"),
        ("proposal", "skipped"),
        ("negotiation", "skipped"),
        ("close", "done"),
    ]
