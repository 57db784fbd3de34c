"""The shipped agents, and the messages to which an escalation rule applies."""

from collections import Counter

import pytest
from syrupy.assertion import SnapshotAssertion

from agents.loader import load_agents, load_out_of_scope_messages
from agents.spec import ASKS_FOR_A_PERSON, LANGUAGES, AgentSpec, EscalationRule, normalize_words
from tests.support.held_out import read_routed_messages

TOOLS = (
    "check_service_status",
    "create_engineering_ticket",
    "get_contact",
    "get_invoices",
    "get_opportunities",
    "get_orders",
    "get_product_version",
    "hand_over_to_human",
    "recall",
    "remember",
    "schedule_follow_up",
    "search_knowledge_base",
    "search_past_tickets",
    "send_solution_to_customer",
)
AGENTS = load_agents(tools=TOOLS)


def test_the_shipped_agents(snapshot: SnapshotAssertion) -> None:
    rows = [
        f"{agent.name} | {agent.category} | {agent.pattern} | {agent.temperature} | {', '.join(agent.tools)}"
        for agent in AGENTS.values()
    ]
    assert "\n".join(rows) == snapshot


def test_there_are_at_least_21_specialists_beside_the_general_agent() -> None:
    assert len(AGENTS.keys() - {"general"}) >= 21


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_has_about_35_examples_in_english_and_portuguese_and_half_as_many_in_spanish(
    name: str,
) -> None:
    agent = AGENTS[name]
    assert all(29 <= len(agent.examples[language]) <= 41 for language in ("en", "pt"))
    assert 12 <= len(agent.examples["es"]) <= 20
    assert len(agent.utterances) == sum(len(agent.examples[language]) for language in LANGUAGES)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_hands_over_when_the_customer_asks_for_a_person(name: str) -> None:
    for message in ("I'd like to speak to a human, please!", "Quero FALAR com um atendente."):
        rule = AGENTS[name].find_escalation(message)
        assert rule is not None, message
        assert rule.when == ASKS_FOR_A_PERSON


@pytest.mark.parametrize("name", AGENTS)
def test_no_ordinary_message_triggers_an_escalation(name: str) -> None:
    ordinary = [text for agent in AGENTS.values() for text in agent.utterances]
    assert [text for text in ordinary if AGENTS[name].find_escalation(text)] == []


def test_out_of_scope_messages_are_no_examples_and_none_is_repeated() -> None:
    outside = load_out_of_scope_messages()
    served = {normalize_words(text) for agent in AGENTS.values() for text in agent.utterances}
    assert len(outside) >= 150
    assert not any(text.startswith("#") for text in outside)
    assert {normalize_words(text) for text in outside} & served == set()
    assert [text for text, times in Counter(map(normalize_words, outside)).items() if times > 1] == []


def test_there_are_five_held_out_messages_per_agent_in_english_and_portuguese() -> None:
    counts = Counter((row["agent"], row["language"]) for row in read_routed_messages())
    assert counts == {(name, language): 5 for name in AGENTS for language in ("en", "pt")}


RULE = EscalationRule(
    when="A court is named.", phrases=("ação judicial", "take you to court"), team="success"
)


@pytest.mark.parametrize(
    ("message", "applies"),
    [
        ("Vou abrir uma AÇÃO JUDICIAL!", True),
        ("vou abrir uma acao\n judicial", True),
        ("I will take you to court.", True),
        ("I will take-you-to court", True),
        ("ações judiciais", False),
        ("I will take you to courtyard B", False),
        ("judicial ação", False),
        ("", False),
    ],
)
def test_a_phrase_matches_whole_words_ignoring_case_and_accents(message: str, applies: bool) -> None:
    assert RULE.applies_to(message) is applies


def test_an_agent_adds_its_own_phrases_for_a_person_to_the_default() -> None:
    agent = AgentSpec.model_validate(
        {**AGENTS["general"].model_dump(), "handoff_phrases": ["chama o gerente"]}
    )
    for message in ("Chama o gerente!", "real person"):
        rule = agent.find_escalation(message)
        assert rule is not None
        assert rule.when == ASKS_FOR_A_PERSON


def test_the_first_rule_that_applies_counts() -> None:
    rule = AGENTS["complaint_resolution"].find_escalation("My lawyer wants to speak to a human")
    assert rule is not None
    assert rule.when == "The customer speaks of a lawyer, a court, a consumer authority or the press."
    assert AGENTS["complaint_resolution"].find_escalation("o processo de importação falhou") is None
