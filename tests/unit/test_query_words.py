"""The choice of retrievers by the words of a question."""

from datetime import UTC, datetime

import pytest

from core.memory import STRATEGIES
from memory.query_words import Period, choose_retrievers, find_period

# A Wednesday.
NOW = datetime(2026, 3, 4, 15, tzinfo=UTC)
GENERAL = STRATEGIES["general"]


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What became of ticket TKT-2031?", "tkt-2031"),
        ("Erro 500 na exportação", "erro 500"),
        ("Where is order #4512?", "#4512"),
        ("Did ana@shop.example write?", "ana@shop.example"),
        ("It crashes since 2.3.1", "2.3.1"),
    ],
)
def test_a_code_is_searched_by_its_letters(question: str, named: str) -> None:
    choice = choose_retrievers(question, GENERAL, NOW)
    assert choice.reasons == (f"lexical: the question names {named!r}",)
    assert choice.weights.trigram > GENERAL.trigram
    assert 0 < choice.weights.vector < GENERAL.vector


@pytest.mark.parametrize(
    "question", ["Who decides at Meridian?", "Quem decide a compra?", "¿Quién es el jefe de compras?"]
)
def test_a_relation_is_searched_in_the_graph(question: str) -> None:
    choice = choose_retrievers(question, GENERAL, NOW)
    [reason] = choice.reasons
    assert reason.startswith("graph: the question asks for a relation")
    assert choice.weights.graph > GENERAL.graph
    # A strategy without a graph has none.
    assert choose_retrievers(question, STRATEGIES["knowledge"], NOW).reasons == ()


@pytest.mark.parametrize(
    ("question", "since", "until"),
    [
        ("What did we agree on yesterday?", (2026, 3, 3), (2026, 3, 4)),
        ("O que pedi na semana passada?", (2026, 2, 23), (2026, 3, 2)),
        ("What did I ask last month?", (2026, 2, 1), (2026, 3, 1)),
        ("¿Qué pagué el mes pasado?", (2026, 2, 1), (2026, 3, 1)),
        ("E neste ano?", (2026, 1, 1), (2027, 1, 1)),
    ],
)
def test_a_named_period_is_searched_by_time(
    question: str, since: tuple[int, int, int], until: tuple[int, int, int]
) -> None:
    choice = choose_retrievers(question, GENERAL, NOW)
    assert choice.period == Period(datetime(*since, tzinfo=UTC), datetime(*until, tzinfo=UTC))
    assert choice.weights.temporal > 0
    assert choice.reasons[0].startswith("temporal: ")


def test_a_period_crosses_the_turn_of_the_year_and_the_end_of_a_longer_month() -> None:
    january = datetime(2026, 1, 31, tzinfo=UTC)
    assert find_period("last month", january)[1] == Period(
        datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    )
    december = datetime(2026, 12, 31, tzinfo=UTC)
    assert find_period("this month", december)[1] == Period(
        datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "question",
    [
        "When did I meet Ana on the 5th of May 2023 at 7pm?",
        "Does the 24-hour window apply to 50k contacts?",
        "What about covid-19 and the follow-up?",
        "Good morning!",
        "",
    ],
)
def test_other_questions_are_searched_as_the_strategy_says(question: str) -> None:
    assert choose_retrievers(question, GENERAL, NOW) == choose_retrievers("", GENERAL, NOW)
    assert choose_retrievers(question, GENERAL, NOW).weights is GENERAL
