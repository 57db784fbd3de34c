"""The facts memory holds after customers wrote messages, with the offline model."""

from collections.abc import AsyncIterator

import pytest

from core.models import ChatModels, ModelInfo
from core.offline import OfflineChatModel
from core.postgres import Pool
from memory.embedded import EmbeddedMemory
from nodes.shared.fact_extraction import extract_facts
from tests.support.facts import ANA, fact_memory, make_message

OFFLINE = ChatModels(
    ModelInfo(
        model="offline", reasoning_model="offline", fallback_model=None, is_language_model=False, why="-"
    ),
    lambda _: OfflineChatModel(),
)


@pytest.fixture
async def memory(pool: Pool) -> AsyncIterator[EmbeddedMemory]:
    async with fact_memory(pool) as opened:
        yield opened


async def learn(memory: EmbeddedMemory, *texts: str) -> list[tuple[str, str]]:
    """Return the facts that hold after a customer wrote these, ten days apart."""
    messages = [make_message(number, text, day=10 * number) for number, text in enumerate(texts)]
    for number, message in enumerate(messages):
        await memory.add_messages(ANA, [message])
        await memory.upsert_facts(
            ANA, await extract_facts(OFFLINE, [message], context=messages[:number]) or []
        )
    return [(fact.predicate, fact.object) for fact in await memory.list_facts(ANA)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("I live in Porto", "My brother moved to Lisbon", "Porto"),
        ("I live in Porto", "I moved to Lisbon for two weeks", "Porto"),
        ("I live in Porto", "Do you have an office in Lisbon? We might move to Lisbon.", "Porto"),
        ("Moro no Porto", "A minha colega mora em Lisboa", "Porto"),
        ("We are 50 people", "Our customers are 5,000 people", "50"),
        ("We are on the Pro plan", "What does the Team plan cost?", "Pro"),
        (
            "My e-mail is ana@acme.example",
            "Send the invoice to Bruno, his e-mail is b@acme.example",
            "ana@acme.example",
        ),
        ("I work at Beta Labs", "I left Acme in 2019", "Beta Labs"),
    ],
)
async def test_a_true_fact_stays_valid(
    memory: EmbeddedMemory, first: str, second: str, expected: str
) -> None:
    assert [value for _, value in await learn(memory, first, second)] == [expected]
    assert len(await memory.fact_history(ANA)) <= 2


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("I live in Porto", "I moved to Lisbon", ["Lisbon"]),
        ("Moro no Porto", "Mudei-me para Lisboa", ["Lisboa"]),
        ("We are 40 people", "We are now 50 people", ["50"]),
        ("Somos 40 pessoas", "Somos agora 50 pessoas", ["50"]),
        ("My e-mail is ana@acme.example", "My new e-mail is ana@beta.example", ["ana@beta.example"]),
        ("We are on the Basic plan", "We upgraded to the Pro plan", ["Pro"]),
        ("We use Zapier", "We no longer use Zapier", []),
        ("We use Zapier", "We switched from Zapier to Make", ["Make"]),
        ("Usamos o Zapier", "Já não usamos o Zapier", []),
        ("I work at Acme", "I left Acme and joined Beta Labs", ["Beta Labs"]),
        ("We are 50 people", "Sorry, it is 60, not 50", ["60"]),
    ],
)
async def test_an_outdated_fact_is_superseded(
    memory: EmbeddedMemory, first: str, second: str, expected: list[str]
) -> None:
    assert [value for _, value in await learn(memory, first, second)] == expected
    closed = [each for each in await memory.fact_history(ANA) if each.superseded_at]
    assert {each.superseded_by for each in closed} == {"m1"}


async def test_a_correction_a_change_and_a_repetition_are_distinguished(memory: EmbeddedMemory) -> None:
    texts = (
        "We are 50 people",
        "We are 50 people",
        "Actually we are 60 people, not 50",
        "We are now 80 people",
    )
    assert await learn(memory, *texts) == [("company_size", "80")]
    history = await memory.fact_history(ANA)
    assert [(each.object, each.superseded_by) for each in history] == [
        ("50", "m2"),
        ("60", "m3"),
        ("60", None),
        ("80", None),
    ]
    # The correction holds since the wrong one was expected to, the change since it was told.
    first, _, third, last = history
    assert (third.valid_from, third.valid_to) == (first.valid_from, last.valid_from)
    assert first.confidence == pytest.approx(0.96)
