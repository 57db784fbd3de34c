"""What a message makes the memory believe: no more than it says, and nothing it does not."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import SystemMessage
from nodes.shared.fact_extraction import MAX_FACTS, ExtractedFact, Extraction, extract_facts

from core.memory import Message, NewFact
from core.memory.values import Role
from core.models import ChatModels, ModelInfo
from core.offline import OfflineChatModel
from tests.support.scripted import ScriptedChatModel, scripted_models

OFFLINE = ChatModels(
    ModelInfo(
        model="offline", reasoning_model="offline", fallback_model=None, is_language_model=False, why="-"
    ),
    lambda _: OfflineChatModel(),
)
SATURDAY = datetime(2026, 1, 10, 9, tzinfo=UTC)


def message(text: str, role: Role = "customer") -> Message:
    return Message(id="m1", role=role, text=text, at=SATURDAY, session_id="s1")


async def offline(text: str, *before: str) -> list[NewFact]:
    return await extract_facts(OFFLINE, message(text), before=[message(each) for each in before])


async def scripted(*replies: object, text: str = "We are 50 people") -> list[NewFact]:
    return await extract_facts(scripted_models(ScriptedChatModel(replies=list(replies))), message(text))


def extraction(**fields: str) -> Extraction:
    return Extraction(
        facts=[ExtractedFact.model_validate({"predicate": "company_size", "object": "50", **fields})]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("We are now 50 people.", [("company", "company_size", "50")]),
        ("Somos agora 1.200 colaboradores.", [("company", "company_size", "1.200")]),
        ("Hi! I moved to Lisbon last week, lovely city.", [("contact", "city", "Lisbon")]),
        ("Mudei-me para o Porto.", [("contact", "city", "Porto")]),
        ("We\u2019ve just relocated to Vila Nova de Gaia", [("company", "city", "Vila Nova de Gaia")]),
        ("My new e-mail is ana@new.example, thanks", [("contact", "email", "ana@new.example")]),
        ("O meu novo telemóvel é +351 912 345 678", [("contact", "phone", "+351 912 345 678")]),
        ("We upgraded to the Pro plan.", [("company", "plan", "Pro")]),
        ("I'm the CFO of Acme", [("contact", "role", "CFO")]),
        ("Our budget is now 20,000 euros.", [("company", "budget", "20,000 euros")]),
        ("We use Slack.", [("company", "uses", "Slack")]),
    ],
)
async def test_what_a_customer_says_of_themselves_is_found(
    text: str, said: list[tuple[str, str, str]]
) -> None:
    facts = await offline(text)
    assert [(fact.subject, fact.predicate, fact.object) for fact in facts] == said
    assert [(fact.source_message_id, fact.confidence) for fact in facts] == [("m1", 0.8)] * len(facts)
    assert not any(fact.correction or fact.ended for fact in facts)


@pytest.mark.parametrize(
    "text",
    [
        "Are you in Lisbon?",
        "We might move to Madrid next year.",
        "If we are 60 people next year, which plan fits?",
        "My sister moved to Braga and lives in Braga now.",
        "I moved to Lisbon for two weeks, then came back.",
        "I used to live in Porto.",
        "When I moved to Lisbon in 2019 everything was cheaper.",
        "We are not 50 people.",
        "Não moro em Lisboa.",
        "Queremos saber se usamos Zapier.",
        "We have 50 open tickets.",
        "We moved to the Enterprise team room",
        "The export fails with error 4031 since yesterday. Please help.",
        "Obrigado!",
    ],
)
async def test_what_is_asked_supposed_or_said_of_others_is_believed_of_nobody(text: str) -> None:
    assert await offline(text) == []


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("We no longer use Zapier.", "Zapier"),
        ("We don't use Slack anymore", "Slack"),
        ("Já não usamos o Zapier.", "Zapier"),
        ("I don't live in Porto anymore.", "Porto"),
        ("I left Acme last month.", "Acme"),
    ],
)
async def test_what_holds_no_longer_is_told_as_ended(text: str, ended: str) -> None:
    [fact] = await offline(text)
    assert (fact.object, fact.ended) == (ended, True)


async def test_a_switch_ends_one_and_begins_the_other() -> None:
    for text in ("We switched from Zapier to Make.", "Trocámos o Zapier pelo Make."):
        facts = await offline(text)
        assert [(fact.object, fact.ended) for fact in facts] == [("Zapier", True), ("Make", False)]


async def test_a_correction_is_told_from_a_change() -> None:
    [corrected] = await offline("Actually we are 60 people, not 50.")
    assert (corrected.object, corrected.correction, corrected.instead_of) == ("60", True, "50")
    [changed] = await offline("Actually we are now 60 people.")
    assert not changed.correction
    [counted] = await offline("We are 60 people, not counting interns.")
    assert not counted.correction


@pytest.mark.parametrize("text", ["Sorry, it's 60, not 50.", "Na verdade são 60, não 50."])
async def test_a_bare_correction_is_about_what_was_said_before(text: str) -> None:
    [fact] = await offline(text, "We are 50 people")
    assert (fact.predicate, fact.object, fact.instead_of) == ("company_size", "60", "50")
    assert await offline(text, "We are 70 people") == []
    assert await offline(text) == []


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("I have lived here long: I live in Lisbon since 2019.", datetime(2019, 1, 1, tzinfo=UTC)),
        ("Moro em Braga desde março de 2024", datetime(2024, 3, 1, tzinfo=UTC)),
        ("We upgraded to the Pro plan in June", datetime(2025, 6, 1, tzinfo=UTC)),
        ("We upgraded to the Pro plan yesterday", datetime(2026, 1, 9, tzinfo=UTC)),
        ("I live in Lisbon", None),
    ],
)
async def test_since_when_is_reckoned_from_the_date_of_the_message(text: str, since: datetime | None) -> None:
    [fact] = await offline(text)
    assert fact.valid_from == since


async def test_the_company_s_own_agents_are_not_evidence() -> None:
    model = ScriptedChatModel(replies=[])
    assert await extract_facts(scripted_models(model), message("We are 50 people", "agent")) == []
    assert model.asked == []


async def test_the_model_is_told_the_date_and_what_was_said_before() -> None:
    model = ScriptedChatModel(replies=[Extraction(facts=[])])
    before = [message("How many people are you?", "agent")]
    assert await extract_facts(scripted_models(model), message("50, since May"), before=before) == []
    [[system, question, asked]] = model.asked
    assert isinstance(system, SystemMessage)
    assert "- company_size: number of people" in system.text
    assert question.text == "How many people are you?"
    assert asked.text == "Message of Saturday, 2026-01-10, by the customer:\n\n50, since May"


@pytest.mark.parametrize("value", ["", "  ", "...", "x" * 501])
async def test_a_value_that_is_none_is_left_out(value: str) -> None:
    assert await scripted(extraction(object=value)) == []


@pytest.mark.parametrize("day", ["2026-02-31", "soon", "1200-01-01", "2099-01-01", "2026-01-10", ""])
async def test_a_day_that_cannot_be_is_the_day_of_the_message(day: str) -> None:
    [fact] = await scripted(extraction(valid_from=day))
    assert fact.valid_from is None


async def test_names_are_kept_as_memory_compares_them() -> None:
    [fact] = await scripted(extraction(predicate="Company Size", subject=" ", object=" 50\0 "))
    assert (fact.subject, fact.predicate, fact.object) == ("contact", "company_size", "50")


async def test_a_model_that_writes_on_and_on_adds_ten_facts() -> None:
    facts = [ExtractedFact(predicate="uses", object=f"Product {number}") for number in range(40)]
    found = await scripted(Extraction(facts=[facts[0], *facts]))
    assert [fact.object for fact in found] == [f"Product {number}" for number in range(MAX_FACTS)]


async def test_a_reply_that_cannot_be_read_is_asked_for_once_more_and_then_no_fact() -> None:
    assert len(await scripted("no idea", extraction())) == 1
    assert await scripted("no idea", "still none") == []


@given(
    st.text(max_size=300)
    | st.lists(
        st.sampled_from(["we are", "now", "50", "people", "not", "I moved to", "Lisbon,", "é", ".", "?"])
    ).map(" ".join)
)
async def test_whatever_the_text_facts_are_few_and_fit(text: str) -> None:
    facts = await offline(text)
    assert len(facts) <= MAX_FACTS
    assert all(fact.object.strip() and fact.predicate for fact in facts)


@pytest.mark.parametrize(
    "text", ["we use " + "A " * 2_000, "i now " * 700, "trocámos a b " * 300, "we are 1." * 400]
)
async def test_no_text_keeps_the_rules_busy(text: str) -> None:
    begun = time.perf_counter()
    await offline(text)
    assert time.perf_counter() - begun < 2
