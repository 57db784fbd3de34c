"""What a caller of the parallel graph notices, over the real saver and the development CRM."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

import httpx
import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import Field, SecretStr, ValidationError
from syrupy.assertion import SnapshotAssertion

from core.context import Context
from core.errors import InvalidRequest
from core.models import ChatModels, build_chat_models
from core.models.reasoning import get_reasoning
from core.postgres import Pool
from core.settings import CrmSettings, FeatureSettings, ModelSettings
from graphs.parallel import SPEC
from graphs.spec import draw_mermaid
from nodes.parallel.nodes import DEFAULT_TOOLS, MERGE_TEMPERATURE
from nodes.parallel.races import Race
from nodes.parallel.state import DEFAULT_AGENTS, ParallelInput
from nodes.react.state import Reflection
from tests.support.gemini import Text, gemini_server
from tests.support.graphs import compiled, development_deps
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT
from tests.support.waiting import until
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient, create_http_client

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]

QUESTION = "Why does the export fail?"
UNAVAILABLE = [ConnectionError("no route")] * 3
SEARCH = ("search_knowledge_base", {"query": "export"})
MORE = Reflection(success=True, reasoning="Not yet.", task_complete=False)
MERGER = "merger"


class Agents(ScriptedChatModel):
    """Gives each agent, and the merger, the replies written under its name, and keeps what it was asked.

    What ``first`` holds under a name happens, once, before its first token. ``ended`` are those that were
    cancelled there. ``offered`` are the tools of each call that had some.
    """

    scripts: dict[str, list[Any]] = Field(default_factory=dict)
    heard: dict[str, list[list[BaseMessage]]] = Field(default_factory=dict)
    first: dict[str, Callable[[], Awaitable[Any]]] = Field(default_factory=dict)
    ended: list[str] = Field(default_factory=list)
    offered: list[list[str]] = Field(default_factory=list)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        self.offered.append([tool.name for tool in tools])
        return super().bind_tools(tools, **kwargs)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.replies = self.scripts.get(_asked(messages), [])
        return super()._next(messages)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        name = _asked(messages)
        self.heard.setdefault(name, []).append(messages)
        if happens := self.first.pop(name, None):
            try:
                await happens()
            except asyncio.CancelledError:
                self.ended.append(name)
                raise
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield chunk


def _asked(messages: list[BaseMessage]) -> str:
    told = "\n".join(message.text for message in messages)
    return told.partition("You are agent ")[2].partition(".")[0] or MERGER


async def never() -> None:
    await asyncio.Event().wait()


def agents(*names: str, tools: Sequence[str] = ()) -> list[dict[str, Any]]:
    more = {"tools": list(tools)} if tools else {}
    return [{"name": name, "instruction": f"You are agent {name}.", **more} for name in names]


def build_input(*names: str, **more: Any) -> dict[str, Any]:
    return {"question": QUESTION, "contact_id": CONTACT, "agents": agents(*names), **more}


def on(thread: str = "thread") -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "recursion_limit": SPEC.recursion_limit}


@asynccontextmanager
async def parallel(pool: Pool, model: BaseChatModel | ChatModels) -> AsyncIterator[Graph]:
    models = scripted_models(model) if isinstance(model, BaseChatModel) else model
    async with development_deps(pool, models) as deps:
        yield await compiled(SPEC, deps, pool)


async def run(graph: Graph, given: Any, thread: str = "thread", **more: Any) -> dict[str, Any]:
    given = ParallelInput.model_validate(given) if isinstance(given, dict) else given
    output: dict[str, Any] = await graph.ainvoke(given, on(thread), durability=SPEC.durability, **more)
    return output


def statuses(output: dict[str, Any]) -> dict[str, str]:
    return {branch["name"]: branch["status"] for branch in output["branches"]}


def reasons(output: dict[str, Any]) -> dict[str, str]:
    return {branch["name"]: branch["reason"] for branch in output["branches"]}


# Merging


async def test_the_good_answers_are_merged_into_one(pool: Pool) -> None:
    scripts = {"ana": ["Use batches."], "bob": ["It was slow\nbefore."], MERGER: ["Use batches, as before."]}
    model = Agents(scripts=scripts)
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob"), context=Context(locale="pt-BR"))
        state = await graph.aget_state(on())
    assert (output["success"], output["reason"]) == (True, "merged")
    assert output["answer"] == "Use batches, as before."
    assert output["answered_by"] == ["ana", "bob"]
    assert output["branches"] == [
        {"name": "ana", "status": "answered", "answer": "Use batches.", "reason": ""},
        {"name": "bob", "status": "answered", "answer": "It was slow\nbefore.", "reason": ""},
    ]
    assert [(message.type, message.text) for message in output["messages"]] == [
        ("human", QUESTION),
        ("ai", "Use batches, as before."),
    ]
    assert {key: state.values[key] for key in output} == output
    system, question, answers = model.heard[MERGER][0]
    assert "answer in 'pt-BR'" in system.text
    assert question.text == QUESTION
    assert answers.text.splitlines() == [
        "[Answers of the agents]",
        "1. lookup(ana): Use batches.",
        "2. lookup(bob): It was slow",
        "   before.",
    ]


async def test_all_agents_work_at_once(pool: Pool) -> None:
    names = ["ana", "bob", "eve"]
    scripts = {name: ["Use batches."] for name in names} | {MERGER: ["All say: use batches."]}
    together = asyncio.Barrier(3)
    model = Agents(scripts=scripts, first=dict.fromkeys(names, together.wait))
    async with parallel(pool, model) as graph, asyncio.timeout(60):
        assert (await run(graph, build_input(*names)))["reason"] == "merged"


async def test_a_slow_agent_times_out_and_the_others_answer(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["Use batches."]}, first={"bob": never})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob", branch_timeout_seconds=2))
    assert statuses(output) == {"ana": "answered", "bob": "timed_out"}
    assert reasons(output)["bob"] == "there was no answer within 2 seconds"
    assert model.ended == ["bob"]
    # One answer needs no merging: the merger's script is empty.
    assert (output["answer"], output["answered_by"], output["reason"]) == (
        "Use batches.",
        ["ana"],
        "only_answer",
    )


async def test_an_agent_whose_model_is_unavailable_fails_and_says_why(pool: Pool) -> None:
    model = Agents(scripts={"ana": [*UNAVAILABLE], "bob": ["Use batches."]})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob"))
    assert statuses(output) == {"ana": "failed", "bob": "answered"}
    assert "does not answer" in reasons(output)["ana"]
    assert (output["answer"], output["reason"]) == ("Use batches.", "only_answer")


async def test_an_agent_that_could_not_finish_is_not_merged_in(pool: Pool) -> None:
    failed = Reflection(
        success=False, reasoning="No article.", task_complete=True, final_answer="The articles say nothing."
    )
    scripts = {
        "ana": [calling("I look.", SEARCH), failed],
        "bob": ["", ""],
        "eve": ["Use batches."],
        "joe": ["Or the API."],
        MERGER: ["Batches or the API."],
    }
    model = Agents(scripts=scripts)
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob", "eve", "joe"))
    assert reasons(output) == {"ana": "task_failed", "bob": "model_reply_unreadable", "eve": "", "joe": ""}
    assert output["branches"][0]["answer"] == "The articles say nothing."
    assert output["answered_by"] == ["eve", "joe"]
    assert "1. lookup(ana) failed: task_failed" in model.heard[MERGER][0][-1].text


async def test_a_crm_that_is_down_fails_the_agent_that_needs_it(pool: Pool) -> None:
    settings = CrmSettings(max_attempts=1)
    down = httpx.MockTransport(lambda request: httpx.Response(503))
    looks = [calling("I look.", SEARCH), MORE]
    model = Agents(scripts={"ana": looks * 3, "bob": ["Use batches."]})
    async with (
        development_deps(pool, scripted_models(model)) as deps,
        create_http_client(settings, "http://crm", transport=down) as http,
    ):
        crm = CrmClient(http, settings)
        graph = await compiled(SPEC, replace(deps, crm=crm, tools=crm_tools(crm)), pool)
        output = await run(graph, build_input("ana", "bob"))
    assert reasons(output)["ana"] == "tool_unavailable"
    assert (output["answer"], output["answered_by"]) == ("Use batches.", ["bob"])


async def test_without_any_good_answer_the_run_says_so_and_the_thread_stays_usable(pool: Pool) -> None:
    model = Agents(scripts={"ana": [*UNAVAILABLE, "Use batches."], "bob": ["", ""]})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob"))
        assert (output["success"], output["reason"]) == (False, "no_branch_answered")
        assert output["answered_by"] == []
        assert output["answer"].startswith("None of the agents could answer (ana: The model 'scripted' does")
        assert output["messages"][-1].text == output["answer"]
        again = await run(graph, build_input("ana"))
    assert (again["answer"], again["reason"], len(again["branches"])) == ("Use batches.", "only_answer", 1)
    assert [message.type for message in again["messages"]] == ["human", "ai", "human", "ai"]


@pytest.mark.parametrize(
    ("unusable", "fault"),
    [(" ", "it was empty"), ("[Answers of the agents]\nana: One.", "it repeats parts of the prompt")],
)
async def test_an_unusable_merged_answer_is_requested_once_more(
    pool: Pool, unusable: str, fault: str
) -> None:
    model = Agents(scripts={"ana": ["One."], "bob": ["Two."], MERGER: [unusable, "One and two."]})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob"))
    assert output["answer"] == "One and two."
    assert fault in model.heard[MERGER][1][-1].text


@pytest.mark.parametrize("replies", [["", " "], [*UNAVAILABLE]], ids=["empty", "unavailable"])
async def test_answers_that_cannot_be_merged_stand_side_by_side(pool: Pool, replies: list[Any]) -> None:
    model = Agents(scripts={"ana": ["One."], "bob": ["Two."], MERGER: replies})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob"))
    assert (output["success"], output["reason"]) == (False, "not_merged")
    assert output["answer"] == "ana: One.\n\nbob: Two."
    assert output["answered_by"] == ["ana", "bob"]


# Racing


async def test_the_first_good_answer_cancels_agents_that_would_never_end(pool: Pool) -> None:
    model = Agents(scripts={"bob": ["Use batches."]}, first={"ana": never, "eve": never})

    async def when_both_work() -> None:
        await until(lambda: {"ana", "eve"} <= set(model.heard))

    model.first["bob"] = when_both_work
    async with parallel(pool, model) as graph, asyncio.timeout(60):
        output = await run(graph, build_input("ana", "bob", "eve", mode="first", branch_timeout_seconds=300))
    assert (output["success"], output["reason"]) == (True, "first_answer")
    assert (output["answer"], output["answered_by"]) == ("Use batches.", ["bob"])
    assert statuses(output) == {"ana": "cancelled", "bob": "answered", "eve": "cancelled"}
    assert reasons(output) == {"ana": "bob answered first", "bob": "", "eve": "bob answered first"}
    assert sorted(model.ended) == ["ana", "eve"]
    assert MERGER not in model.heard


async def test_an_agent_that_fails_fast_does_not_win(pool: Pool) -> None:
    failed: list[Any] = []
    model = Agents(scripts={"ana": ["", ""], "bob": ["Use batches."]})

    async def when_ana_has_failed() -> None:
        await until(lambda: failed)

    model.first["bob"] = when_ana_has_failed
    async with parallel(pool, model) as graph:
        async for part in graph.astream(build_input("ana", "bob", mode="first"), on(), stream_mode="updates"):
            assert isinstance(part, dict)
            failed += part.get("branch", {}).get("branches", [])
        output = (await graph.aget_state(on())).values
    assert statuses(output) == {"ana": "failed", "bob": "answered"}
    assert (output["answer"], output["reason"]) == ("Use batches.", "first_answer")


async def test_of_simultaneous_answers_one_wins(pool: Pool) -> None:
    names = ["ana", "bob", "eve", "joe"]
    together = asyncio.Barrier(len(names))
    model = Agents(
        scripts={name: [f"Says {name}."] for name in names}, first=dict.fromkeys(names, together.wait)
    )
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input(*names, mode="first"))
    assert sorted(statuses(output).values()) == ["answered", "cancelled", "cancelled", "cancelled"]
    [winner] = output["answered_by"]
    assert output["answer"] == f"Says {winner}."
    assert statuses(output)[winner] == "answered"


async def test_a_race_without_a_winner_ends_without_an_answer(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["", ""]}, first={"bob": never})
    async with parallel(pool, model) as graph:
        output = await run(graph, build_input("ana", "bob", mode="first", branch_timeout_seconds=2))
    assert statuses(output) == {"ana": "failed", "bob": "timed_out"}
    assert (output["success"], output["reason"]) == (False, "no_branch_answered")


async def test_an_agent_that_is_scheduled_after_the_win_is_not_asked(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["Use batches."]}, first={"bob": never})
    async with parallel(pool, model) as graph:
        output = await graph.ainvoke(build_input("ana", "bob", mode="first"), {**on(), "max_concurrency": 1})
    assert statuses(output) == {"ana": "answered", "bob": "cancelled"}
    assert "bob" not in model.heard


async def test_a_race_ends_no_agent_of_another_run(pool: Pool) -> None:
    go_on = asyncio.Event()
    model = Agents(
        scripts={"ana": ["Use batches."], "eve": ["Call us."]},
        first={"bob": never, "eve": go_on.wait, "ana": lambda: until(lambda: "bob" in model.heard)},
    )
    async with parallel(pool, model) as graph, asyncio.timeout(60):
        other = asyncio.create_task(run(graph, build_input("eve", mode="first"), "other"))
        await until(lambda: "eve" in model.heard)
        output = await run(graph, build_input("ana", "bob", mode="first"))
        go_on.set()
        assert (await other)["answer"] == "Call us."
    assert output["answer"] == "Use batches."
    assert model.ended == ["bob"]


async def test_a_win_does_not_touch_an_agent_whose_time_limit_has_expired() -> None:
    race, dying, let_go = Race(), asyncio.Event(), asyncio.Event()

    async def late() -> None:
        limit = asyncio.timeout(0)
        async with limit:
            with race.join(limit):
                try:
                    await never()
                finally:
                    dying.set()
                    await let_go.wait()

    agent = asyncio.create_task(late())
    await dying.wait()
    assert race.claim("ana")
    let_go.set()
    with pytest.raises(TimeoutError):
        await agent
    assert not race.claim("bob")


# Tools


async def test_an_agent_is_offered_its_tools_and_without_any_those_that_only_read(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["Yes."], "bob": ["Yes."], MERGER: ["Yes."]})
    given = [*agents("ana"), *agents("bob", tools=["check_service_status", "check_service_status"])]
    async with parallel(pool, model) as graph:
        await run(graph, build_input(agents=given))
    assert sorted(model.offered) == sorted([["check_service_status"], list(DEFAULT_TOOLS)])


async def test_an_unknown_tool_is_refused_before_anything_runs(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["Use batches."]})
    given = [*agents("ana"), *agents("bob", tools=["send_fax", "search_knowledge_base", "call"])]
    async with parallel(pool, model) as graph:
        with pytest.raises(InvalidRequest) as caught:
            await run(graph, build_input(agents=given))
        assert (
            "there is no tool 'call', which 'bob' names; there is no tool 'send_fax'" in caught.value.message
        )
        assert caught.value.details == {"unknown_tools": {"bob": ["call", "send_fax"]}}
        assert not model.heard
        assert (await run(graph, build_input("ana")))["answer"] == "Use batches."


async def test_an_agent_without_a_tool_does_not_get_all_of_them(pool: Pool) -> None:
    async with development_deps(pool, scripted_models(Agents())) as deps:
        effects = {name: tool for name, tool in deps.tools.items() if name not in DEFAULT_TOOLS}
        graph = await compiled(SPEC, replace(deps, tools=effects), pool)
        with pytest.raises(InvalidRequest, match="'ana' must name its tools"):
            await run(graph, build_input("ana"))


async def test_a_call_that_needs_a_person_waits_while_the_other_answers_are_kept(pool: Pool) -> None:
    refund = ("send_solution_to_customer", {"solution": "We will refund this month."})
    sent = Reflection(success=True, reasoning="Sent.", task_complete=True, final_answer="Told them.")
    scripts = {"ana": ["Use batches."], "bob": [calling("I tell them.", refund), sent], MERGER: ["Both."]}
    model = Agents(scripts=scripts)
    given = [*agents("ana"), *agents("bob", tools=["send_solution_to_customer"])]
    async with parallel(pool, model) as graph:
        waiting = await run(graph, build_input(agents=given))
        [pending] = waiting["__interrupt__"]
        assert pending.value["tool"] == "send_solution_to_customer"
        output = await run(graph, Command(resume={pending.id: {"decision": "approve"}}))
    assert (output["answer"], output["answered_by"]) == ("Both.", ["ana", "bob"])
    assert {name: len(heard) for name, heard in model.heard.items()} == {"ana": 1, "bob": 2, MERGER: 1}


# Turns, streams and crashes


async def test_a_new_run_inherits_nothing_from_the_last_one(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["One."], "bob": ["Two."], "eve": ["Three."], MERGER: ["All."]})
    async with parallel(pool, model) as graph:
        await run(graph, build_input("ana", mode="first"))
        output = await run(graph, build_input("bob", "eve", question="And now?"))
    assert statuses(output) == {"bob": "answered", "eve": "answered"}
    assert (output["answer"], output["reason"]) == ("All.", "merged")
    assert model.heard["bob"][0][1].text == "And now?"


async def test_tokens_stream_from_every_agent_and_from_the_merger(pool: Pool) -> None:
    model = Agents(scripts={"ana": ["Use batches."], "bob": ["Ask support."], MERGER: ["Do both."]})
    texts: dict[str, str] = {}
    async with parallel(pool, model) as graph:
        parts: AsyncIterator[Any] = graph.astream(
            build_input("ana", "bob"), on(), stream_mode="messages", subgraphs=True
        )
        async for namespace, (message, metadata) in parts:
            if isinstance(message, AIMessageChunk):
                where = "/".join((*namespace, metadata["langgraph_node"]))
                texts[where] = texts.get(where, "") + (get_reasoning(message) or message.text)
                assert ("answer" in metadata["tags"]) == (where == "merge")
    assert texts.pop("merge") == "Do both."
    assert sorted(texts.values()) == ["Ask support.", "Use batches."]
    for where in texts:
        assert where.startswith("branch:")
        assert where.endswith("/think")


async def test_after_a_crash_only_the_unfinished_agent_continues(pool: Pool) -> None:
    answered: list[Any] = []
    done = Reflection(success=True, reasoning="Found.", task_complete=True, final_answer="The article helps.")
    model = Agents(scripts={"ana": ["Use batches."], "bob": [calling("I look.", SEARCH)], MERGER: ["Both."]})

    async def crash() -> None:
        await until(lambda: answered and len(model.heard["bob"]) == 2)
        raise RuntimeError("the process was killed")

    async def then_crash_in_the_reflection() -> None:
        model.first["bob"] = crash

    async def run_to_the_crash(graph: Graph) -> None:
        given = graph.astream(
            build_input("ana", "bob"), on(), stream_mode="updates", durability=SPEC.durability
        )
        async for part in given:
            assert isinstance(part, dict)
            answered.extend(part.get("branch", {}).get("branches", ()))

    model.first["bob"] = then_crash_in_the_reflection
    async with parallel(pool, model) as graph:
        with pytest.raises(RuntimeError, match="killed"):
            await run_to_the_crash(graph)
    model.scripts["bob"] = [done]
    async with parallel(pool, model) as restarted:
        output = await run(restarted, None)
    # Bob thought once, and was asked twice for the reflection; his search was not made again.
    assert {name: len(heard) for name, heard in model.heard.items()} == {"ana": 1, "bob": 3, MERGER: 1}
    assert len(model.heard["bob"][1]) == len(model.heard["bob"][2])
    assert output["branches"][1]["answer"] == "The article helps."
    assert (output["answer"], output["reason"]) == ("Both.", "merged")


async def test_a_win_that_was_saved_before_a_crash_is_still_the_answer(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    won = asyncio.Event()

    async def run_to_the_win(graph: Graph) -> None:
        given = build_input("ana", "bob", mode="first")
        async for part in graph.astream(given, on(), stream_mode="updates", durability=SPEC.durability):
            assert isinstance(part, dict)
            if "branch" in part:
                won.set()

    # As if the process ended before the loser heard of the win.
    monkeypatch.setattr(Race, "join", lambda race, limit: nullcontext())
    model = Agents(
        scripts={"ana": ["Use batches."], "bob": ["Too late."]},
        first={"bob": never, "ana": lambda: until(lambda: "bob" in model.heard)},
    )
    async with parallel(pool, model) as graph:
        running = asyncio.create_task(run_to_the_win(graph))
        await won.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with parallel(pool, model) as restarted:
        output = await run(restarted, None)
    assert {name: len(heard) for name, heard in model.heard.items()} == {"ana": 1, "bob": 2}
    assert (output["answer"], output["answered_by"]) == ("Use batches.", ["ana"])
    assert output["reason"] == "first_answer"


# Input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", ""),
        ("question", "x" * 10_001),
        ("contact_id", ""),
        ("agents", []),
        ("agents", agents("ana", "Ana")),
        ("agents", agents("ana(x)")),
        ("agents", agents(*(f"agent {number}" for number in range(9)))),
        ("agents", [{"name": "ana"}]),
        ("agents", agents("ana", tools=["x"] * 21)),
        ("mode", "fastest"),
        ("branch_timeout_seconds", 0.5),
        ("branch_timeout_seconds", 301),
        ("branch_timeout_seconds", float("nan")),
    ],
)
def test_input_out_of_bounds_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        ParallelInput.model_validate({**build_input("ana"), field: value})


async def test_braces_and_marks_in_texts_are_not_interpreted(pool: Pool) -> None:
    nasty = "Why {instruction}? \0 \ud83d"
    answer = "First.\n2. lookup(bob): I agree \0."
    model = Agents(scripts={"ana": [answer], "bob": ["No {answers}."], MERGER: ["They disagree."]})
    async with parallel(pool, model) as graph:
        # A dict, because the input model takes no lone surrogates.
        output = await graph.ainvoke(
            build_input("ana", "bob", question=nasty), on(), durability=SPEC.durability
        )
        assert (await graph.aget_state(on())).values["question"] == "Why {instruction}?  "
    assert model.heard["ana"][0][1].text == "Why {instruction}?  "
    assert "You are agent ana." in model.heard["ana"][0][0].text
    assert model.heard[MERGER][0][-1].text.splitlines()[2:] == [
        "   2. lookup(bob): I agree .",
        "2. lookup(bob): No {answers}.",
    ]
    assert output["answer"] == "They disagree."


# Other models


async def test_the_offline_model_answers_from_what_a_source_says(pool: Pool) -> None:
    async with parallel(pool, build_chat_models(ModelSettings(), FeatureSettings())) as graph:
        merged = await run(graph, SPEC.example, "merge")
        first = await run(graph, {**SPEC.example, "mode": "first"}, "first")
    assert (merged["success"], merged["reason"]) == (True, "only_answer")
    assert list(statuses(merged)) == [agent["name"] for agent in DEFAULT_AGENTS]
    assert "40K" in merged["answer"]
    assert (first["success"], first["reason"]) == (True, "first_answer")
    assert list(statuses(first).values()).count("answered") == 1


async def test_over_the_wire_agents_have_their_tools_and_the_merger_its_temperature(pool: Pool) -> None:
    async with gemini_server() as server:
        server.enqueue(
            Text(["Use batches."]),
            Text(["Use batches."]),
            Text(["Both say: use"], finish_reason="MAX_TOKENS"),
            Text(["Both say: ", "use batches."]),
        )
        settings = ModelSettings(
            _env_file=None, google_api_key=SecretStr("AIzaTestKeyOfNobody"), google_base_url=server.url
        )
        models = build_chat_models(settings, FeatureSettings(_env_file=None))
        given = [*agents("ana", tools=["search_past_tickets"]), *agents("bob")]
        async with parallel(pool, models) as graph:
            output = await run(graph, build_input(agents=given))
        await models.aclose()
    assert (output["answer"], server.unasked) == ("Both say: use batches.", 0)
    *branches, merger, again = server.requests
    assert sorted(tuple(request.functions) for request in branches) == sorted(
        [("search_past_tickets",), DEFAULT_TOOLS]
    )
    assert [request.temperature for request in server.requests] == [
        0.2,
        0.2,
        MERGE_TEMPERATURE,
        MERGE_TEMPERATURE,
    ]
    assert merger.system.startswith("You make one answer of what several agents answered")
    assert merger.functions == {}
    assert merger.contents[-1][1].endswith("2. lookup(bob): Use batches.")
    assert "it was cut at the output limit" in again.contents[-1][1]


# Golden files


def test_the_diagram(snapshot: SnapshotAssertion) -> None:
    assert draw_mermaid(SPEC) == snapshot


def test_the_input_schema(snapshot: SnapshotAssertion) -> None:
    assert ParallelInput.model_json_schema() == snapshot


async def test_the_prompts_as_the_model_sees_them(pool: Pool, snapshot: SnapshotAssertion) -> None:
    model = Agents(scripts={"ana": ["Use batches."], "bob": ["Ask support."], MERGER: ["Do both."]})
    async with parallel(pool, model) as graph:
        await run(graph, build_input("ana", "bob"))
    assert [
        message.text for message in model.heard["ana"][0] if isinstance(message, HumanMessage)
    ] == snapshot(name="task")
    assert [message.text for message in model.heard[MERGER][0]] == snapshot(name="merger")
