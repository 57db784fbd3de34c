"""What every prompt has: the day, worked examples that hold what they promise, and a version."""

import json
import re
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.spec import AgentSpec
from core.models.echoes import find_echo
from core.texts import detect_language
from nodes.coordinator.router import Router
from nodes.critique_refine.judgements import Review, Verdict
from nodes.planning_monitor.schema import Judgement
from nodes.shared.prompts import build_system_prompt, describe_day, describe_time, hash_prompts, load_prompt
from tests.support.agents import load_shipped_agents

AGENTS = load_shipped_agents(cast("Router", None)).specs


class Choice(BaseModel):
    """The router's choice, whose names differ from message to message."""

    agent: str


# The day


@pytest.mark.parametrize(
    ("time_zone", "day"),
    [
        ("America/Sao_Paulo", "Monday, 30 November 2026. The customer's time zone is America/Sao_Paulo."),
        ("Asia/Tokyo", "Tuesday, 1 December 2026. The customer's time zone is Asia/Tokyo."),
        ("", "Monday, 30 November 2026 (UTC). The customer's time zone is not known."),
        ("Mars/Olympus", "Monday, 30 November 2026 (UTC). The customer's time zone is not known."),
    ],
)
def test_the_day_is_the_customers(time_zone: str, day: str) -> None:
    assert describe_day(time_zone) == f"Today is {day}"


def test_the_time_is_the_customers_where_it_is_said() -> None:
    assert describe_time("Asia/Tokyo") == "It is 05:15 in Asia/Tokyo."
    assert describe_time("nowhere") == "It is 20:15 in UTC."


@given(st.text(max_size=120) | st.sampled_from(["../etc/passwd", "America", ".", "\0", "x" * 5_000]))
def test_a_crm_may_write_anything_as_a_time_zone(time_zone: str) -> None:
    assert describe_day(time_zone).startswith("Today is ")


def test_the_day_ends_a_system_prompt_and_nothing_before_it_changes() -> None:
    plain = build_system_prompt("Rules.", "", locale=None)
    prompt = build_system_prompt("Rules.", "Your role.", locale="pt-BR", time_zone="Asia/Tokyo")
    assert plain == f"Rules.\n\n{describe_day('')}"
    assert prompt == (
        "Rules.\n\nYour role.\n\nWhatever the language of the task, answer in 'pt-BR' (BCP 47)."
        f"\n\n{describe_day('Asia/Tokyo')}"
    )


# Worked examples of agents


def list_examples(agent: AgentSpec) -> list[tuple[str, str, str]]:
    """Message, what the agent does (empty where it has no tools) and answer of each example."""
    text = agent.prompt.partition("## Examples")[2]
    pattern = r"Message: (.+?)\n(?:You: (.+?)\n)?Answer: (.+?)(?=\n\nMessage: |\Z)"
    return re.findall(pattern, text, re.DOTALL)


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.name)
def test_each_agent_has_two_or_three_examples_that_it_can_follow(agent: AgentSpec) -> None:
    examples = list_examples(agent)
    assert 2 <= len(examples) <= 3
    assert len(examples) == agent.prompt.count("\nMessage: ")
    assert all(bool(done) == bool(agent.tools) for _, done, _ in examples)
    used = {tool for _, done, _ in examples for tool in re.findall(r"`([a-z_]+)`", done)}
    assert used <= set(agent.tools)
    assert {detect_language(answer) for _, _, answer in examples} == {"en", "pt"}


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.name)
def test_an_answer_like_that_of_an_example_is_no_echo_and_shows_nothing_internal(agent: AgentSpec) -> None:
    for _, _, answer in list_examples(agent):
        assert find_echo(answer) is None
        assert find_echo(f"Hello!\n\n{answer}\n\nAnything else?") is None
        assert not re.search(r"`|\b(?:search|get|hand_over|schedule)_[a-z_]+|\{|\[|<", answer)


def test_a_reply_that_repeats_the_examples_themselves_is_an_echo() -> None:
    for agent in AGENTS.values():
        assert find_echo(agent.prompt.partition("## Examples")[2])


# Worked examples of judges


@pytest.mark.parametrize(
    ("prompt", "label", "schema"),
    [
        ("critique_refine_criticise", "Judgement", Review),
        ("critique_refine_validate", "Verdict", Verdict),
        ("planning_monitor_monitor", "Judgement", Judgement),
        ("coordinator_choose", "Choice", Choice),
    ],
)
def test_the_examples_of_a_judge_are_replies_in_its_format(
    prompt: str, label: str, schema: type[BaseModel]
) -> None:
    replies = re.findall(rf"^{label}: (.+)$", load_prompt(prompt), re.MULTILINE)
    assert 2 <= len(replies) <= 3
    for reply in replies:
        value = schema.model_validate_json(reply)
        assert list(json.loads(reply)) == list(schema.model_fields)
        if isinstance(value, Verdict):
            assert value.approved is not bool(value.issues)


# The version


def test_the_version_of_the_prompts_changes_with_an_agents_prompt_and_not_with_their_order() -> None:
    version = hash_prompts(["You sell.", "You help."])
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert version == hash_prompts(["You help.", "You sell."])
    assert len({version, hash_prompts(["You sell."]), hash_prompts(["You sell!", "You help."])}) == 3


def test_the_version_of_the_prompts_changes_with_a_prompts_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_prompts([])
    changed = {"react": "Act."}
    monkeypatch.setattr(
        "nodes.shared.prompts.load_prompt", lambda name: changed.get(name) or load_prompt(name)
    )
    assert hash_prompts([]) != before
