"""The agents that are shipped, and what a rule of escalation hears."""

import json
from collections import Counter
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from agents.loader import load_agents, outside_utterances
from agents.spec import LANGUAGES, EscalationRule, words

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
HELD_OUT = Path(__file__).parent.parent / "data" / "routed_messages.json"


def test_the_agents_that_are_shipped(snapshot: SnapshotAssertion) -> None:
    rows = [
        f"{agent.name} | {agent.category} | {agent.pattern} | {agent.temperature} | {', '.join(agent.tools)}"
        for agent in AGENTS.values()
    ]
    assert "\n".join(rows) == snapshot


def test_there_are_at_least_21_specialists_beside_the_general_agent() -> None:
    assert len(AGENTS.keys() - {"general"}) >= 21


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_has_12_to_16_examples_in_each_language(name: str) -> None:
    agent = AGENTS[name]
    assert all(12 <= len(agent.examples[language]) <= 16 for language in LANGUAGES)
    assert len(agent.utterances) == sum(len(agent.examples[language]) for language in LANGUAGES)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_lets_go_when_a_person_is_asked_for(name: str) -> None:
    for message in ("I'd like to speak to a human, please!", "Quero FALAR com um atendente."):
        rule = AGENTS[name].escalated_by(message)
        assert rule is not None, message
        assert rule.when == "The customer asks for a person."


@pytest.mark.parametrize("name", AGENTS)
def test_no_ordinary_message_is_taken_from_an_agent(name: str) -> None:
    ordinary = [text for agent in AGENTS.values() for text in agent.utterances]
    assert [text for text in ordinary if AGENTS[name].escalated_by(text)] == []


def test_messages_outside_are_no_agents_and_none_stands_twice() -> None:
    outside = outside_utterances()
    served = {words(text) for agent in AGENTS.values() for text in agent.utterances}
    assert len(outside) >= 60
    assert not any(text.startswith("#") for text in outside)
    assert {words(text) for text in outside} & served == set()
    assert [text for text, times in Counter(map(words, outside)).items() if times > 1] == []


def test_the_messages_held_out_are_five_a_language_and_agent_and_none_is_an_example() -> None:
    held_out = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    served = {words(text) for agent in AGENTS.values() for text in agent.utterances}
    assert {words(row["text"]) for row in held_out} & served == set()
    counts = Counter((row["agent"], row["language"]) for row in held_out)
    assert counts == {(name, language): 5 for name in AGENTS for language in LANGUAGES}


RULE = EscalationRule(
    when="A court is named.", phrases=("ação judicial", "take you to court"), team="success"
)


@pytest.mark.parametrize(
    ("message", "heard"),
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
def test_a_phrase_is_heard_as_whole_words_whatever_their_case_and_accents(message: str, heard: bool) -> None:
    assert RULE.applies_to(message) is heard


def test_the_first_rule_that_applies_counts() -> None:
    rule = AGENTS["complaint_resolution"].escalated_by("My lawyer wants to speak to a human")
    assert rule is not None
    assert rule.when == "The customer speaks of a lawyer, a court, a consumer authority or the press."
    assert AGENTS["complaint_resolution"].escalated_by("o processo de importação falhou") is None
