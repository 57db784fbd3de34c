"""What an agent that works alone is told of its contact, whichever graph it is in, as its model sees it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from core.memory import Memory, Message, NewFact, Scope
from core.packing import SUMMARY_PREFIX
from core.postgres import Pool
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from memory.embedded import EmbeddedMemory, open_memory
from nodes.deps import Deps
from tests.support.graphs import compiled, development_deps
from tests.support.memory import embedder
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import CONTACT

ANA = Scope("default", CONTACT)
LAST_YEAR = datetime.now(UTC) - timedelta(days=365)
PARROT = "Our shop has a green parrot called Lorito, near the export desk."
QUESTION = "What is the parrot at the export desk called?"
INPUTS: Mapping[str, dict[str, Any]] = {
    "react": {"task": QUESTION, "reflection": "never"},
    "hierarchical": {"task": QUESTION},
    "critique_refine": {"prompt": QUESTION},
    "planning_monitor": {"task": QUESTION},
    "parallel": {"question": QUESTION},
    "consensus": {"question": QUESTION, "options": ["yes", "no"]},
    "sales": {"message": QUESTION, "opportunity_id": "OPP-3001"},
}


class Speechless(ScriptedChatModel):
    """Says the same to everything, whatever is asked of it; each graph lives with that."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.prompts.append(messages)
        return AIMessage("Lorito.")


@asynccontextmanager
async def remembering(pool: Pool) -> AsyncIterator[EmbeddedMemory]:
    """A memory of a message, a fact and the summary of a session."""
    async with open_memory(pool, embedder()) as memory:
        said = [
            Message(id="m-parrot", role="customer", text=PARROT, at=LAST_YEAR, session_id="an-old-session"),
            Message(
                id=f"{SUMMARY_PREFIX}old",
                role="note",
                text="The customer told us of the export desk and its parrot.",
                at=LAST_YEAR,
                session_id="an-old-session",
            ),
        ]
        await memory.add_messages(ANA, said)
        fact = NewFact(
            subject="contact", predicate="city", object="Lima", confidence=0.8, source_message_id="m-parrot"
        )
        await memory.upsert_facts(ANA, [fact])
        yield memory


@asynccontextmanager
async def alone(pool: Pool, model: ScriptedChatModel, memory: Memory | None = None) -> AsyncIterator[Deps]:
    async with development_deps(pool, scripted_models(model)) as deps:
        yield replace(deps, memory=memory) if memory else deps


async def run(spec: GraphSpec, deps: Deps, pool: Pool, given: Mapping[str, Any], **more: Any) -> Any:
    graph = await compiled(spec, deps, pool)
    config: Any = {"configurable": {"thread_id": spec.name}, "recursion_limit": spec.recursion_limit}
    request = spec.validate_input({"contact_id": CONTACT, **given, **more})
    return await graph.ainvoke(request, config, durability="exit")


def seen(model: ScriptedChatModel) -> str:
    """What the model was asked first."""
    return "\n".join(message.text for message in model.prompts[0])


def section(output: Mapping[str, Any], name: str) -> Any:
    [context] = output["context"]
    return next((each for each in context["sections"] if each["section"] == name), None)


async def test_every_graph_shows_its_agent_what_memory_knows_of_the_contact(pool: Pool) -> None:
    async with remembering(pool) as memory:
        for name, given in INPUTS.items():
            model = Speechless()
            async with alone(pool, model, memory) as deps:
                output = await run(REGISTRY[name], deps, pool, given)
            assert output["memory"] == {"available": True, "degraded": []}, name
            [context] = output["context"]
            assert (context["agent"], context["tokens"] <= context["budget"]) == (name, True)
            told = seen(model)
            assert f"[{LAST_YEAR.date()}, message of session an-old-s] customer: {PARROT}" in told, name
            assert f"[{LAST_YEAR.date()}, summary of session an-old-s]" in told, name
            assert "contact city: Lima [since" in told, name
            assert told.count("laura.bennett@") == 1, name
            assert section(output, "memories")["included"] == ["m-parrot"]
            assert section(output, "customer")["included"] == ["profile"]
        # What the CRM said of the contact is in the graph.
        graph = await memory.query_graph(ANA, CONTACT)
        assert {edge.type for edge in graph.edges} == {"WORKS_AT", "HAS_TICKET"}


async def test_without_memory_the_agent_sees_the_threads_turns_and_the_output_says_so(pool: Pool) -> None:
    for name in ("react", "parallel"):
        model = Speechless()
        async with alone(pool, model) as deps:
            await run(REGISTRY[name], deps, pool, INPUTS[name])
            model.prompts.clear()
            output = await run(REGISTRY[name], deps, pool, INPUTS[name])
        assert output["memory"] == {
            "available": False,
            "degraded": ["facts: there is no memory here", "search: there is no memory here"],
        }
        assert len(section(output, "conversation")["included"]) == 2
        assert "Lorito." in seen(model)


async def test_turns_that_do_not_fit_are_left_out_and_listed(pool: Pool) -> None:
    model = Speechless()
    long = "the export fails again and again " * 600
    async with alone(pool, model) as deps:
        await run(REGISTRY["react"], deps, pool, INPUTS["react"], task=long)
        model.prompts.clear()
        output = await run(REGISTRY["react"], deps, pool, INPUTS["react"])
    conversation = section(output, "conversation")
    assert len(conversation["dropped"]) == 1
    assert "again and again" not in seen(model)


async def test_an_embedded_agent_gets_its_context_from_its_caller_and_does_not_ask_memory(pool: Pool) -> None:
    async with remembering(pool) as memory:
        searched: list[str] = []
        searching = memory.search

        async def search(scope: Scope, query: str, **more: Any) -> Any:
            searched.append(query)
            return await searching(scope, query, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "search", search)
            model = Speechless()
            async with alone(pool, model, memory) as deps:
                await run(REGISTRY["parallel"], deps, pool, INPUTS["parallel"])
    assert searched == [QUESTION]
    asked = branches(model.prompts)
    assert len(asked) > 1
    assert all(text.count(PARROT) == 1 for text in asked)


def branches(asked: Sequence[Sequence[BaseMessage]]) -> list[str]:
    """What each agent of the parallel graph was shown; the merger sees their answers alone."""
    shown = ["\n".join(message.text for message in messages) for messages in asked]
    return [text for text in shown if "[Background" in text]
