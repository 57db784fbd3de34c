"""The shipped agents, and the messages to which an escalation rule applies."""

import time
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from syrupy.assertion import SnapshotAssertion

from agents.escalation import (
    ASKS_FOR_A_PERSON,
    BREACH,
    COMPLAINT,
    DEFAULT_RULES,
    LEGAL_THREAT,
    EscalationRule,
    normalize_words,
)
from agents.loader import load_out_of_scope_messages
from agents.spec import LANGUAGES, AgentSpec
from tests.support.agents import load_shipped_specs
from tests.support.held_out import read_routed_messages

AGENTS = load_shipped_specs()
DATA = Path(__file__).parent.parent / "data"


def test_the_shipped_agents(snapshot: SnapshotAssertion) -> None:
    rows = [
        f"{agent.name} | {agent.category} | {agent.pattern} | {agent.temperature} | {', '.join(agent.tools)}"
        for agent in AGENTS.values()
    ]
    assert "\n".join(rows) == snapshot


def test_there_are_at_least_21_specialists_beside_the_general_agent() -> None:
    assert len(AGENTS.keys() - {"general"}) >= 21


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_has_about_35_examples_in_english_and_portuguese_and_fewer_in_spanish(
    name: str,
) -> None:
    agent = AGENTS[name]
    assert all(29 <= len(agent.examples[language]) <= 60 for language in ("en", "pt"))
    assert 12 <= len(agent.examples["es"]) <= 45
    assert len(agent.utterances) == sum(len(agent.examples[language]) for language in LANGUAGES)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_hands_over_when_the_customer_asks_for_a_person(name: str) -> None:
    for message in ("I'd like to speak to a human, please!", "Quero FALAR com um atendente."):
        rule = AGENTS[name].find_escalation(message)
        assert rule is not None, message
        assert rule.when == ASKS_FOR_A_PERSON.when


@pytest.mark.parametrize("name", AGENTS)
def test_no_ordinary_message_triggers_an_escalation(name: str) -> None:
    # Customers who write to the agent for complaints complain, and may ask for a person.
    ordinary = [
        text for agent in AGENTS.values() if agent.name != "complaint_resolution" for text in agent.utterances
    ]
    assert [text for text in ordinary if AGENTS[name].find_escalation(text)] == []


RULES = {"breach": BREACH, "legal": LEGAL_THREAT, "person": ASKS_FOR_A_PERSON, "complaint": COMPLAINT}
ESCALATIONS = YAML(typ="safe", pure=True).load(DATA / "escalations.yaml")


def find_default_rule(message: str) -> str:
    return next((name for name, rule in RULES.items() if rule.applies_to(message)), "none")


def test_a_person_is_called_in_every_language_for_what_the_rules_know() -> None:
    assert tuple(RULES.values()) == DEFAULT_RULES
    found = {
        text: (expected, find_default_rule(text))
        for expected, texts in ESCALATIONS["known"].items()
        for text in texts
    }
    wrong = {text: names for text, names in found.items() if names[0] != names[1]}
    assert list(wrong) == ["Is it possible to speak with one of your colleagues on the phone, a real person?"]


def test_most_customers_who_need_a_person_get_one_and_few_others_do() -> None:
    held_out = [
        (expected, find_default_rule(text))
        for expected, texts in ESCALATIONS["held_out"].items()
        for text in texts
    ]
    called = [names for names in held_out if names[1] != "none"]
    needed = [names for names in held_out if names[0] != "none"]
    right = [names for names in called if names[0] == names[1]]
    assert len(held_out) >= 60
    assert len(held_out) - len(needed) >= len(held_out) / 3
    # Measured: 39 of 40 calls were right (97.5 %), and 39 of 50 that were needed were made (78 %).
    assert len(right) >= 0.95 * len(called)
    assert len(right) >= 0.75 * len(needed)


def test_a_long_message_is_read_in_no_time() -> None:
    words = "i we my our data customers talk to a the can you quero falar com mi cuenta no " * 60
    started = time.perf_counter()
    find_default_rule(words)
    assert time.perf_counter() - started < 1.0


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
        assert rule.when == ASKS_FOR_A_PERSON.when


def test_the_first_rule_that_applies_counts() -> None:
    rule = AGENTS["complaint_resolution"].find_escalation(
        "My lawyer will write, and I want to speak to a human"
    )
    assert rule is not None
    assert rule.when == LEGAL_THREAT.when
    assert AGENTS["complaint_resolution"].find_escalation("o processo de importação falhou") is None
