"""Snapshots of what the coordinator's models see."""

from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage
from syrupy.assertion import SnapshotAssertion

from core.context import Context
from nodes.coordinator.router import Router
from nodes.coordinator.specialists import answer_directly
from nodes.coordinator.state import SpecialistInput
from nodes.deps import Deps
from nodes.shared.prompts import load_prompt
from tests.support.agents import load_shipped_agents
from tests.support.scripted import ScriptedChatModel, scripted_models
from tools.crm.client import CrmClient


@pytest.mark.parametrize("name", ["answer", "choose", "clarify", "merge"])
def test_prompts_as_the_model_sees_them(name: str, snapshot: SnapshotAssertion) -> None:
    assert load_prompt(f"coordinator_{name}") == snapshot


async def test_the_prompt_of_an_agent_that_answers_directly(snapshot: SnapshotAssertion) -> None:
    model = ScriptedChatModel(replies=[AIMessage("Hello!")])
    agents = load_shipped_agents(cast("Router", None))
    deps = Deps(models=scripted_models(model), tools={}, crm=cast("CrmClient", None), agents=agents)
    sent: dict[str, Any] = dict.fromkeys(SpecialistInput.__annotations__, "")
    sent |= {
        "agent": "general",
        "task": "Who am I talking to?",
        "customer": '{"contact": {"id": "ana", "name": "Ana", "timezone": "Europe/Lisbon"}}',
        "background": "<facts>\n- city: Lisbon\n</facts>",
    }
    answer = await answer_directly(
        deps, agents.specs["general"], cast("SpecialistInput", sent), Context(locale="pt")
    )
    assert answer["response"] == "Hello!"
    assert [(message.type, message.text) for message in model.prompts[0]] == snapshot
