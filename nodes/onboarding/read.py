"""Read the customer's reply."""

import asyncio
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import ModelError
from nodes.deps import Deps, Node, get_run_context
from nodes.onboarding.outbox import queued
from nodes.onboarding.reading import TEXTS_READ
from nodes.onboarding.replies import (
    Reading,
    build_reading_schema,
    detect_reply_language,
    parse_reply,
    parse_reply_without_model,
)
from nodes.onboarding.state import PROFILE, OnboardingState, Question
from nodes.onboarding.texts import TEXTS
from nodes.onboarding.understanding import Next, understood
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

# What a reply says is to be found, not thought up.
TEMPERATURE = 0.0
# A little more than a model's attempts take together; below the step's own limit, which would end the run.
CALL_TIMEOUT_SECONDS = 200.0


def read(deps: Deps) -> Node[OnboardingState, Command[Next]]:
    """Node: take in what the reply says. A model that fails leaves the reply to be taken as it stands."""
    system = load_prompt("onboarding_read")

    async def read(state: OnboardingState, *, runtime: Runtime[Context]) -> Command[Next]:
        context = get_run_context(runtime)
        language = detect_reply_language(context.locale, state["reply"], state["language"])
        now: OnboardingState = {**state, "language": language}
        reading = parse_reply(state["reply"], state["question"])
        if reading is None:
            reading = await _by_model(deps, system, now, context.model)
        update, goto = understood(now, reading)
        changes = _changes(state, update)
        if changes:
            update |= queued(now, runtime, "profile", changes)
        return Command(goto=goto, update={"language": language, **update})

    return read


async def _by_model(deps: Deps, system: str, state: OnboardingState, model: str | None) -> Reading:
    question, reply = state["question"], state["reply"]
    messages = [SystemMessage(system.format(asked=asked_in_words(state, question))), HumanMessage(reply)]
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            reading = await ask_structured(
                deps.models,
                messages,
                build_reading_schema(question),
                temperature=TEMPERATURE,
                role="chat",
                model=model,
            )
    except (ModelError, TimeoutError):
        reading = None
    return _without_echo(reading, reply) if reading else parse_reply_without_model(reply, question)


def _without_echo(reading: Reading, reply: str) -> Reading:
    """The reading, of which a reply that is no information is not itself taken for some."""
    if reading.intent == "information":
        return reading
    whole = " ".join(reply.split())
    return reading.model_copy(update={name: "" for name in TEXTS_READ if getattr(reading, name) == whole})


def asked_in_words(state: OnboardingState, question: Question | None) -> str:
    """The question alone, without what was told before it."""
    return TEXTS[state["language"]].questions[question] if question else "nothing yet: they write first"


def _changes(state: OnboardingState, update: dict[str, Any]) -> dict[str, int | str]:
    """Of the profile, what the CRM is to be told."""
    return {
        name: update["profile"][name]
        for name in PROFILE
        if update["profile"][name] is not None and update["profile"][name] != state["profile"][name]
    }
