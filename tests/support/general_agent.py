"""The service with the general agent alone, for tests of what surrounds the agents."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from core.memory import Scope
from core.models import ChatModels
from nodes.coordinator.classifier import Routing
from nodes.coordinator.router import Router
from tests.support.scripted import INFO, ScriptedChatModel
from tests.support.service import CONTACT, RunningService, running_service

OTHER = "550e8400-e29b-41d4-a716-446655440001"
PARROT = "I write from the shop with the green parrot."
AGAIN = "Do you remember the parrot?"


@asynccontextmanager
async def service(
    database_url: str, model: ScriptedChatModel | ChatModels, **groups: Any
) -> AsyncIterator[RunningService]:
    """Open the service; every message goes to the general agent, which answers at once."""

    async def route_parts(_: Router, text: str) -> list[tuple[str, Routing]]:
        return [(text, SURE)]

    async def prepare(_: Router) -> None:
        """Fit nothing, because nothing is routed."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Router, "route_parts", route_parts)
        patch.setattr(Router, "prepare", prepare)
        if isinstance(model, ChatModels):
            models = model
        else:
            # As the offline model, which words no summaries: those are extracts then.
            models = ChatModels(
                replace(INFO, is_language_model=False), lambda _: model, first_pause=0, rest_seconds=0
            )
        async with running_service(database_url, models, **groups) as running:
            yield running


SURE = Routing(route="general", confidence=1.0, margin=1.0, verdict="sure", alternatives=(), familiarity=1.0)


async def say(running: RunningService, message: str, contact: str = CONTACT, **body: Any) -> dict[str, Any]:
    values = {"contact_id": contact, "message": message, **body}
    answered = await running.http.post("/v1/messages", json=values)
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


def replying(*texts: str) -> ScriptedChatModel:
    return ScriptedChatModel(replies=[AIMessage(text) for text in texts])


def shown(model: ScriptedChatModel) -> str:
    """Return the text of the model's last prompt."""
    return "\n".join(message.text for message in model.prompts[-1])


async def remembered(running: RunningService, contact: str = CONTACT) -> list[tuple[str, str]]:
    kept = await running.service.memory.recent(Scope("default", contact))
    return [(message.role, message.text) for message in kept]
