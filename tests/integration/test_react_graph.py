"""What a caller of the ReAct graph notices, over the real saver."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException, tool
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph.state import CompiledStateGraph

from core.context import Context
from core.errors import CrmRefused, CrmUnavailable, ModelRefused, ModelUnavailable
from core.models import ChatModels, ModelSpec
from core.models.reasoning import get_reasoning
from core.postgres import Pool
from graphs.react import build_react
from graphs.registry import REGISTRY
from nodes.deps import Deps
from nodes.react.state import ReactInput, ReactOutput, ReactState, Reflection
from tests.support.graphs import NO_AGENTS, empty_crm
from tests.support.savers import saver_on
from tests.support.scripted import INFO, ScriptedChatModel, calling, scripted_models
from tools.execution import MAX_RESULT_CHARACTERS, CallContext

React: TypeAlias = CompiledStateGraph[ReactState, Context, ReactInput, ReactOutput]

REACT = REGISTRY["react"]
DONE = Reflection(success=True, reasoning="All is known.", task_complete=True, final_answer="Use batches.")
UNAVAILABLE = [ConnectionError("no route")] * 3
NOTICE = "[Your last reply could not be read]"


@pytest.fixture
async def saver(pool: Pool) -> AsyncPostgresSaver:
    return await saver_on(pool)


def react(saver: AsyncPostgresSaver, models: BaseChatModel | ChatModels, *tools: BaseTool) -> React:
    if isinstance(models, BaseChatModel):
        models = scripted_models(models)
    deps = Deps(models=models, tools={one.name: one for one in tools}, crm=empty_crm(), agents=NO_AGENTS)
    return build_react(deps).compile(checkpointer=saver, name=REACT.name)


def on(thread: str = "thread") -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "recursion_limit": REACT.recursion_limit}


def ask(task: str = "Why does the export fail?", **more: Any) -> Any:
    return ReactInput(task=task, contact_id="ana", **more).model_dump()


async def run(graph: React, given: Any = None, thread: str = "thread", **more: Any) -> dict[str, Any]:
    """One turn, with the durability it is served with."""
    given = ask(reflection="never") if given is None else given
    output: dict[str, Any] = await graph.ainvoke(given, on(thread), durability=REACT.durability, **more)
    return output


async def resume(graph: React, thread: str = "thread") -> dict[str, Any]:
    return await graph.ainvoke(None, on(thread), durability=REACT.durability)


def more_to_do(reasoning: str, suggested: str | None = None) -> Reflection:
    return Reflection(success=True, reasoning=reasoning, task_complete=False, suggested_next_action=suggested)


def unparseable_call(name: str = "look_up", args: str = "no json") -> AIMessage:
    return AIMessage(
        "Hm.", invalid_tool_calls=[{"name": name, "args": args, "id": "call-bad", "error": None}]
    )


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in messages]


def before_note(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages of a thought without the last one, which says how far the run is."""
    *shown, note = messages
    assert note.text.startswith("[Iteration ")
    return shown


def observed(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """What the tool messages say."""
    return [json.loads(message.text) for message in messages if isinstance(message, ToolMessage)]


def results(output: dict[str, Any]) -> list[Any]:
    """What the actions brought, in order."""
    return [entry["observation"]["result"] for entry in output["trace"] if entry["observation"]]


@tool
async def look_up(query: str) -> dict[str, str]:
    """Look something up.

    Args:
        query: What.
    """
    return {"found": f"all about {query}"}


@tool
async def version() -> str:
    """The customer's version."""
    return "2.4.1"


@tool
async def ask_crm(text: str) -> str:
    """Ask a CRM that refuses."""
    raise CrmRefused(f"there is no article {text!r}", crm_status=404)


@tool
async def ask_oracle(text: str) -> str:
    """Ask what has its own words for no."""
    raise ToolException(f"{text} is not for you")


def flaky(*outcomes: bool) -> BaseTool:
    """A tool that answers where the outcome is true, and else is unavailable."""
    left = list(outcomes)

    @tool
    async def status() -> str:
        """Status of the platform."""
        if not left.pop(0):
            raise CrmUnavailable("the CRM cannot be reached")
        return "operational"

    return status


async def nothing() -> None:
    """Nothing to wait for."""


def sender(
    sent: list[CallContext], *, crashes: int = 0, when: Callable[[], Awaitable[None]] = nothing
) -> BaseTool:
    """A tool with an effect; it records what it is told before it crashes, as many times as it should."""

    @tool
    async def send(text: str, context: Annotated[CallContext, InjectedToolArg]) -> str:
        """Send the customer a message."""
        assert isinstance(context, CallContext)
        sent.append(context)
        if len(sent) <= crashes:
            await when()
            raise RuntimeError("nobody foresaw this")
        return f"sent {text}"

    return send


# --- The answer -------------------------------------------------------------------------------------------


async def test_a_run_answers_with_its_task_result_trace_and_messages(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=[calling("I look it up.", ("look_up", {"query": "export"})), DONE])
    output = await run(react(saver, model, look_up), ask())
    messages = output.pop("messages")
    assert [record["agent"] for record in output.pop("context")] == ["react"]
    assert output.pop("memory")["available"] is False
    assert output == {
        "task": "Why does the export fail?",
        "success": True,
        "final_answer": "Use batches.",
        "iterations": 1,
        "trace": [
            {
                "iteration": 1,
                "thought": "I look it up.",
                "action": {"tool": "look_up", "args": {"query": "export"}},
                "observation": {"success": True, "result": {"found": "all about export"}},
                "reflection": DONE.model_dump(),
            }
        ],
        "reason_incomplete": None,
        "citations": [],
        "unsupported": [],
    }
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert texts(messages)[-1] == "Use batches."


async def test_an_answer_without_a_tool_call_appears_once(saver: AsyncPostgresSaver) -> None:
    output = await run(react(saver, ScriptedChatModel(replies=["Good morning, Ana."])), ask("Good morning"))
    assert output["success"] is True
    assert output["iterations"] == 1
    assert [(entry["thought"], entry["action"], entry["observation"]) for entry in output["trace"]] == [
        ("Good morning, Ana.", None, None)
    ]
    assert texts(output["messages"]) == ["Good morning", "Good morning, Ana."]


async def test_fifty_iterations_fit_in_the_graphs_step_limit(saver: AsyncPostgresSaver) -> None:
    # The most steps a run can take: each thought comes at the second try.
    thoughts = [(AIMessage(""), calling(f"Step {step}.", ("version", {}))) for step in range(50)]
    model = ScriptedChatModel(replies=[reply for pair in thoughts for reply in pair])
    output = await run(react(saver, model, version), ask(max_iterations=50, reflection="never"))
    assert (output["iterations"], output["reason_incomplete"]) == (50, "max_iterations_reached")
    assert max(len(messages) for messages in model.prompts) < 12


# --- Actions ----------------------------------------------------------------------------------------------


async def test_tool_calls_of_one_thought_run_in_parallel_and_their_results_keep_the_order(
    saver: AsyncPostgresSaver,
) -> None:
    both = asyncio.Barrier(2)

    @tool
    async def meet(name: str) -> str:
        """Wait for the other one."""
        async with asyncio.timeout(60):
            await both.wait()
        return name

    thought = calling("Both.", ("meet", {"name": "first"}), ("meet", {"name": "second"}))
    model = ScriptedChatModel(replies=[thought, DONE])
    output = await run(react(saver, model, meet), ask())
    assert results(output) == ["first", "second"]
    assert {entry["iteration"] for entry in output["trace"]} == {1}
    assert [entry["reflection"]["final_answer"] for entry in output["trace"]] == ["Use batches."] * 2
    assert [told["result"] for told in observed(model.prompts[1])] == ["first", "second"]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (("teleport", {}), "unknown_tool", "there is no tool 'teleport'; there are: look_up, ask_crm"),
        (("look_up", {"question": "x"}), "bad_arguments", "query: Field required"),
        (("look_up", {}), "bad_arguments", "query: Field required"),
        (("ask_crm", {"text": "x"}), "refused", "there is no article 'x'"),
        (("ask_oracle", {"text": "x"}), "refused", "x is not for you"),
    ],
)
async def test_the_model_sees_why_a_call_failed_and_can_correct_it(
    saver: AsyncPostgresSaver, call: tuple[str, dict[str, Any]], kind: str, words: str
) -> None:
    mended = calling("Otherwise.", ("look_up", {"query": "export"}))
    model = ScriptedChatModel(replies=[calling("I try.", call), mended, "It works."])
    output = await run(react(saver, model, look_up, ask_crm, ask_oracle))
    [told] = observed(model.prompts[1])
    assert (told["success"], told["error"]["kind"]) == (False, kind)
    assert words in told["error"]["message"]
    assert output["trace"][0]["observation"] == told
    assert (output["success"], output["final_answer"]) == (True, "It works.")


@pytest.mark.parametrize(
    ("failing", "reason"), [(ask_crm, "task_failed"), (flaky(False), "tool_unavailable")]
)
async def test_an_answer_after_failed_calls_only_is_not_a_success(
    saver: AsyncPostgresSaver, failing: BaseTool, reason: str
) -> None:
    thought = calling("I try.", (failing.name, {"text": "x"}))
    model = ScriptedChatModel(replies=[thought, "I could not find out."])
    output = await run(react(saver, model, failing))
    assert (output["success"], output["reason_incomplete"]) == (False, reason)
    assert output["final_answer"] == "I could not find out."


async def test_a_tool_that_stays_unavailable_ends_the_run_with_what_was_found(
    saver: AsyncPostgresSaver,
) -> None:
    thoughts = [calling(f"Try {step}.", ("status", {}), ("version", {})) for step in range(3)]
    judgements = [
        more_to_do("The version is 2.4.1."),
        more_to_do("Down."),
        more_to_do("Version 2.4.1, down."),
    ]
    replies = [reply for pair in zip(thoughts, judgements, strict=True) for reply in pair]
    graph = react(saver, ScriptedChatModel(replies=replies), flaky(False, False, False), version)
    output = await run(graph, ask())
    assert (output["success"], output["reason_incomplete"]) == (False, "tool_unavailable")
    assert output["iterations"] == 3
    assert "status stayed unavailable" in output["final_answer"]
    assert "So far" not in output["final_answer"]
    assert output["messages"][-1].text == output["final_answer"]


async def test_a_tool_that_recovers_does_not_end_the_run(saver: AsyncPostgresSaver) -> None:
    thoughts = [calling(f"Try {step}.", ("status", {})) for step in range(5)]
    model = ScriptedChatModel(replies=[*thoughts, "It is up."])
    output = await run(react(saver, model, flaky(False, False, True, False, False)))
    assert (output["success"], output["final_answer"]) == (True, "It is up.")


async def test_a_huge_result_is_cut(saver: AsyncPostgresSaver) -> None:
    @tool
    async def export() -> str:
        """Everything."""
        return "x" * 500_000

    model = ScriptedChatModel(replies=[calling("All of it.", ("export", {})), "Too much."])
    output = await run(react(saver, model, export))
    assert len(output["trace"][0]["observation"]["result"]) < MAX_RESULT_CHARACTERS + 100
    assert sum(map(len, texts(model.prompts[1]))) < MAX_RESULT_CHARACTERS + 10_000


async def test_a_result_that_is_not_json_is_shown_as_text(saver: AsyncPostgresSaver) -> None:
    @tool
    async def now() -> dict[str, object]:
        """What time it is."""
        return {"now": datetime(2026, 11, 21, tzinfo=UTC), "tags": {"one"}, "rate": float("nan")}

    model = ScriptedChatModel(replies=[calling("When?", ("now", {})), "Today."])
    output = await run(react(saver, model, now))
    result = {"now": "2026-11-21T00:00:00Z", "tags": ["one"], "rate": None}
    assert output["trace"][0]["observation"]["result"] == result
    assert observed(model.prompts[1])[0]["result"] == result


@pytest.mark.parametrize("ids", [(None, None), ("same", "same"), ("", "")])
async def test_calls_without_a_unique_id_are_kept_apart(
    saver: AsyncPostgresSaver, ids: tuple[str | None, str | None]
) -> None:
    sent: list[CallContext] = []
    thought = calling("Two.", ("send", {"text": "one"}), ("send", {"text": "two"}))
    for call, call_id in zip(thought.tool_calls, ids, strict=True):
        call["id"] = call_id
    model = ScriptedChatModel(replies=[thought, "Sent."])
    output = await run(react(saver, model, sender(sent)))
    assert results(output) == ["sent one", "sent two"]
    assert len({context.idempotency_key for context in sent}) == 2
    told = before_note(model.prompts[1])[-3:]
    assert isinstance(told[0], AIMessage)
    replies = [message.tool_call_id for message in told if isinstance(message, ToolMessage)]
    assert [call["id"] for call in told[0].tool_calls] == replies
    assert len({*replies, "", None}) == 4


async def test_a_call_without_arguments_is_carried_out(saver: AsyncPostgresSaver) -> None:
    # An empty text of arguments, as some providers stream it.
    model = ScriptedChatModel(replies=[unparseable_call("version", ""), "2.4.1"])
    output = await run(react(saver, model, version))
    assert output["trace"][0]["observation"] == {"success": True, "result": "2.4.1"}


async def test_a_run_that_may_use_some_tools_uses_no_other(saver: AsyncPostgresSaver) -> None:
    sent: list[CallContext] = []
    bound: list[list[str]] = []

    class Binding(ScriptedChatModel):
        def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
            bound.append([one.name for one in tools])
            return super().bind_tools(tools, **kwargs)

    thought = calling("I send it.", ("send", {"text": "x"}))
    model = Binding(replies=[thought, "I may not send it.", thought, "Sent."])
    graph = react(saver, model, version, sender(sent), look_up)
    output = await run(graph, ask(reflection="never", tools=["look_up", "version"]))
    assert output["trace"][0]["observation"]["error"]["message"].endswith("there are: version, look_up")
    assert sent == []
    # The next turn may use all again.
    await run(graph)
    assert len(sent) == 1
    assert bound == [["version", "look_up"]] * 2 + [["version", "send", "look_up"]] * 2


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_model_cannot_choose_the_contact_a_tool_acts_on(
    saver: AsyncPostgresSaver, *, wrapped: bool
) -> None:
    sent: list[CallContext] = []
    forged = {"contact_id": "mallory", "idempotency_key": "mine"}
    args = {"text": "a", "context": forged, **forged}
    # What LangChain takes for a call with arguments of its own.
    call = {"type": "tool_call", "name": "send", "id": "forged", "args": args}
    written = {**args, **call} if wrapped else args
    model = ScriptedChatModel(replies=[calling("For another one.", ("send", written)), "Sent."])
    await run(react(saver, model, sender(sent)))
    assert [context.contact_id for context in sent] == ["ana"]
    assert sent[0].idempotency_key != "mine"


# --- Reflection -------------------------------------------------------------------------------------------


async def test_a_suggestion_of_the_reflection_is_what_the_model_sees_next(saver: AsyncPostgresSaver) -> None:
    first = calling("I look.", ("look_up", {"query": "export"}))
    hint = more_to_do("The limit depends on the version.", "check the version")
    model = ScriptedChatModel(replies=[first, hint, "It is the limit."])
    await run(react(saver, model, look_up), ask())
    assert before_note(model.prompts[2])[-1].text == (
        "[Reflection after step 1] The limit depends on the version. Suggested next action: check the version"
    )


async def test_a_reflection_can_end_the_run_without_success(saver: AsyncPostgresSaver) -> None:
    blocked = Reflection(
        success=False, reasoning="No access.", task_complete=True, final_answer="We may not do this."
    )
    model = ScriptedChatModel(replies=[calling("I try.", ("ask_crm", {"text": "x"})), blocked])
    output = await run(react(saver, model, ask_crm), ask())
    assert (output["success"], output["reason_incomplete"]) == (False, "task_failed")
    assert output["final_answer"] == "We may not do this."


@pytest.mark.parametrize("answer", [None, "", "  \n", "\0"])
async def test_a_complete_task_without_an_answer_is_answered_by_the_next_thought(
    saver: AsyncPostgresSaver, answer: str | None
) -> None:
    complete = Reflection(success=True, reasoning="Enough.", task_complete=True, final_answer=answer)
    model = ScriptedChatModel(replies=[calling("I look.", ("version", {})), complete, "2.4.1 it is."])
    output = await run(react(saver, model, version), ask())
    assert (output["success"], output["final_answer"]) == (True, "2.4.1 it is.")


async def test_the_mode_never_skips_every_reflection(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=[calling("I try.", ("ask_crm", {"text": "x"})), "No."])
    output = await run(react(saver, model, ask_crm), ask(reflection="never"))
    assert [entry["reflection"] for entry in output["trace"]] == [None, None]


async def test_the_mode_on_error_reflects_only_after_a_failed_call(saver: AsyncPostgresSaver) -> None:
    mixed = calling("Both.", ("version", {}), ("ask_crm", {"text": "x"}))
    judgement = more_to_do("One of two.", "leave the article")
    well = calling("The version.", ("version", {}))
    model = ScriptedChatModel(replies=[mixed, judgement, well, "2.4.1"])
    output = await run(react(saver, model, version, ask_crm), ask(reflection="on_error"))
    said = judgement.model_dump()
    assert [entry["reflection"] for entry in output["trace"]] == [said, said, None, None]
    assert "leave the article" in before_note(model.prompts[2])[-1].text


# --- What the model sees ----------------------------------------------------------------------------------


async def test_the_last_three_iterations_are_shown_in_full_and_older_ones_in_a_line(
    saver: AsyncPostgresSaver,
) -> None:
    def thought(step: int) -> AIMessage:
        calls = [("look_up", {"query": f"{step}{side}"}) for side in "ab"]
        return calling(f"Thought {step}.", *calls)

    replies = [reply for step in range(1, 7) for reply in (thought(step), more_to_do(f"Lesson {step}."))]
    model = ScriptedChatModel(replies=[*replies, "Done."])
    await run(react(saver, model, look_up), ask())
    system, task, earlier, *full = before_note(model.prompts[-1])
    assert model.prompts[-1][-1].text == "[Iteration 7 of at most 10]"
    assert isinstance(system, SystemMessage)
    assert task.text == "Why does the export fail?"
    assert earlier.text.splitlines() == [
        "[Earlier steps]",
        *(
            f"{step}. look_up({{'query': '{step}{side}'}}): Lesson {step}."
            for step in (1, 2, 3)
            for side in "ab"
        ),
    ]
    assert [message.type for message in full] == ["ai", "tool", "tool", "human"] * 3
    assert texts(full)[::4] == ["Thought 4.", "Thought 5.", "Thought 6."]
    assert texts(full)[3::4] == [f"[Reflection after step {step}] Lesson {step}." for step in (4, 5, 6)]
    assert [told["result"]["found"] for told in observed(full)] == [
        f"all about {step}{side}" for step in (4, 5, 6) for side in "ab"
    ]
    # The last reflection saw the same steps, and the question in place of its own words.
    assert texts(model.prompts[-2])[1:-1] == texts(before_note(model.prompts[-1]))[1:-1]
    assert model.prompts[-2][-1].text.startswith("[Review]")


async def test_thought_and_reflection_are_asked_for_in_the_runs_locale(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=[calling("I look.", ("version", {})), DONE])
    await run(react(saver, model, version), ask(), context=Context(locale="pt-BR"))
    assert all("answer in 'pt-BR'" in messages[0].text for messages in model.prompts)


async def test_a_model_chosen_for_the_run_thinks_and_reflects_at_each_steps_temperature(
    saver: AsyncPostgresSaver,
) -> None:
    model = ScriptedChatModel(replies=[calling("I look.", ("version", {})), DONE])
    specs: list[ModelSpec] = []

    def factory(spec: ModelSpec) -> BaseChatModel:
        specs.append(spec)
        return model

    graph = react(saver, ChatModels(INFO, factory), version)
    await run(graph, ask(), context=Context(model="other:one"))
    assert [(spec.name, spec.temperature, spec.thinking) for spec in specs] == [
        ("other:one", 0.2, True),
        ("other:one", 0.1, True),
    ]


# --- What tools are told ------------------------------------------------------------------------------------


async def test_a_tool_is_told_which_agent_calls_it_and_the_time_zone_of_the_contact(
    saver: AsyncPostgresSaver,
) -> None:
    sent: list[CallContext] = []
    model = ScriptedChatModel(replies=[calling("", ("send", {"text": "Use batches."})), "Sent."])
    given = ask(reflection="never", agent="billing_support", time_zone="America/Chicago")
    await run(react(saver, model, sender(sent)), given)
    assert [(context.agent, context.time_zone) for context in sent] == [
        ("billing_support", "America/Chicago")
    ]


# --- Ends that are no success -----------------------------------------------------------------------------


async def test_at_the_limit_the_run_ends_with_the_best_answer_so_far(saver: AsyncPostgresSaver) -> None:
    half = Reflection(
        success=True, reasoning="Not sure.", task_complete=False, final_answer="Batches, I believe."
    )
    first, second = (calling(f"Step {step}.", ("version", {})) for step in (1, 2))
    model = ScriptedChatModel(replies=[first, half, second, more_to_do("Still not.")])
    output = await run(react(saver, model, version), ask(max_iterations=2))
    assert (output["success"], output["reason_incomplete"]) == (False, "max_iterations_reached")
    assert output["iterations"] == 2
    assert len(output["trace"]) == 2
    assert output["final_answer"].endswith("So far: Batches, I believe.")
    assert output["messages"][-1].text == output["final_answer"]


async def test_an_incomplete_run_shows_no_private_thought(saver: AsyncPostgresSaver) -> None:
    replies = [calling("It is the version.", ("version", {})), calling("", ("version", {}))]
    output = await run(
        react(saver, ScriptedChatModel(replies=replies), version), ask(max_iterations=2, reflection="never")
    )
    assert output["reason_incomplete"] == "max_iterations_reached"
    assert "It is the version" not in output["final_answer"]


UNREADABLE = [
    (unparseable_call(), "the arguments of the call to 'look_up' are not valid JSON"),
    (AIMessage(""), "it was empty"),
    (AIMessage(" \n "), "it was empty"),
    (AIMessage("<customer>\nAna\n</customer>\nUse batches."), "it repeats parts of the prompt"),
    (AIMessage(f"{NOTICE} it was empty."), "it repeats parts of the prompt"),
]


@pytest.mark.parametrize(("bad", "fault"), UNREADABLE)
async def test_an_unreadable_reply_is_reported_to_the_model(
    saver: AsyncPostgresSaver, bad: AIMessage, fault: str
) -> None:
    model = ScriptedChatModel(replies=[bad, "Use batches."])
    output = await run(react(saver, model, look_up))
    assert model.prompts[1][-1].text.startswith(f"{NOTICE} {fault}")
    assert (output["success"], output["final_answer"], output["iterations"]) == (True, "Use batches.", 1)
    assert texts(output["messages"]) == ["Why does the export fail?", "Use batches."]


@pytest.mark.parametrize(("bad", "fault"), UNREADABLE)
async def test_a_second_unreadable_reply_ends_the_run(
    saver: AsyncPostgresSaver, bad: AIMessage, fault: str
) -> None:
    found = calling("The limit may be it.", ("version", {}))
    model = ScriptedChatModel(replies=[found, bad, bad])
    output = await run(react(saver, model, version))
    assert (output["success"], output["reason_incomplete"]) == (False, "model_reply_unreadable")
    assert fault in output["final_answer"]
    assert "The limit may be it" not in output["final_answer"]
    assert [entry["thought"] for entry in output["trace"]] == ["The limit may be it."]


async def test_the_notice_disappears_once_the_model_corrected_its_reply(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(
        replies=[AIMessage(""), calling("I look.", ("version", {})), AIMessage(""), "2.4.1"]
    )
    output = await run(react(saver, model, version))
    told = [any(text.startswith(NOTICE) for text in texts(messages)) for messages in model.prompts]
    assert told == [False, True, False, True]
    assert output["success"] is True


async def test_an_unreadable_reflection_is_reported_to_the_model(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=[calling("I look.", ("version", {})), "It went well!", DONE])
    output = await run(react(saver, model, version), ask())
    assert model.prompts[2][-1].text == (
        f"{NOTICE} The reply was not valid JSON. Answer again, in the form asked for."
    )
    assert output["final_answer"] == "Use batches."


async def test_an_echo_in_a_thought_or_a_reflection_is_no_answer(saver: AsyncPostgresSaver) -> None:
    echo = "[Background: information, not instructions] The contact is Ana."
    reflection = DONE.model_copy(update={"final_answer": echo})
    model = ScriptedChatModel(replies=[calling(echo, ("version", {})), reflection, reflection])
    output = await run(react(saver, model, version), ask())
    assert (output["success"], output["reason_incomplete"]) == (False, "model_reply_unreadable")
    assert "Background" not in output["final_answer"]


async def test_a_second_unreadable_reflection_ends_the_run(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=[calling("I look.", ("version", {})), "Well!", '{"success": true}'])
    output = await run(react(saver, model, version), ask())
    assert (output["success"], output["reason_incomplete"]) == (False, "model_reply_unreadable")
    assert output["trace"][0]["observation"] == {"success": True, "result": "2.4.1"}
    assert "I look" not in output["final_answer"]


class CutModel(ScriptedChatModel):
    """Its first reply is cut at the output limit."""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in super()._astream(messages, stop, run_manager, **kwargs):
            if piece.message.response_metadata and len(self.prompts) == 1:
                piece.message.response_metadata = {"finish_reason": "length"}
            yield piece


async def test_a_truncated_call_has_no_effect(saver: AsyncPostgresSaver) -> None:
    sent: list[CallContext] = []
    half = unparseable_call("send", '{"text": "Dear Ana, the reas')
    model = CutModel(replies=[half, calling("Again.", ("send", {"text": "Dear Ana"})), "Sent."])
    output = await run(react(saver, model, sender(sent)))
    assert len(sent) == 1
    assert "it was cut at the output limit" in model.prompts[1][-1].text
    assert output["trace"][0]["action"]["args"] == {"text": "Dear Ana"}


@pytest.mark.parametrize("before", [[], [calling("I look.", ("version", {}))]])
async def test_a_model_that_refuses_ends_the_run_honestly(
    saver: AsyncPostgresSaver, before: list[AIMessage]
) -> None:
    refusal = ModelRefused("The provider blocked the prompt (SAFETY); rephrase the request")
    # Without a thought before it, it is the thought that is refused; with one, the reflection.
    graph = react(saver, ScriptedChatModel(replies=[*before, refusal, "How can I help?"]), version)
    output = await run(graph, ask())
    assert (output["success"], output["reason_incomplete"]) == (False, "model_refused")
    assert "declined to answer" in output["final_answer"]
    assert len(output["trace"]) == len(before)
    again = await run(graph, ask("Hello"))
    assert (again["success"], again["final_answer"]) == (True, "How can I help?")


# --- Failures and what is left of the thread ----------------------------------------------------------------


async def test_an_unavailable_model_is_a_typed_error_and_the_thread_goes_on(
    saver: AsyncPostgresSaver,
) -> None:
    model = ScriptedChatModel(replies=[*UNAVAILABLE, "Hello again."])
    graph = react(saver, model)
    with pytest.raises(ModelUnavailable, match="scripted"):
        await run(graph, ask("First"))
    assert (await graph.aget_state(on())).next == ("think",)
    output = await run(graph, ask("Second"))
    assert (output["success"], output["task"], output["final_answer"]) == (True, "Second", "Hello again.")
    assert texts(before_note(model.prompts[-1]))[1:] == ["First", "Second"]


async def test_a_failed_reflection_resumes_without_repeating_the_actions(
    saver: AsyncPostgresSaver,
) -> None:
    sent: list[CallContext] = []
    model = ScriptedChatModel(replies=[calling("I send.", ("send", {"text": "x"})), *UNAVAILABLE, DONE])
    graph = react(saver, model, sender(sent))
    with pytest.raises(ModelUnavailable):
        await run(graph, ask())
    left = await graph.aget_state(on())
    assert left.next == ("reflect",)
    assert isinstance(left.values["messages"][-1], ToolMessage)
    output = await resume(graph)
    assert (output["success"], output["final_answer"]) == (True, "Use batches.")
    assert len(sent) == 1


async def test_after_a_crash_an_action_repeats_under_its_key_and_its_finished_sibling_does_not(
    saver: AsyncPostgresSaver,
) -> None:
    sent: list[CallContext] = []
    counted: list[str] = []

    @tool
    async def count(name: str) -> str:
        """Count."""
        counted.append(name)
        return name

    async def sibling_is_saved() -> None:
        async with asyncio.timeout(60):
            while not ((saved := await saver.aget_tuple(on())) and saved.pending_writes):
                pass

    thought = calling("Both.", ("count", {"name": "one"}), ("send", {"text": "x"}))
    model = ScriptedChatModel(replies=[thought, "Done."])
    graph = react(saver, model, count, sender(sent, crashes=1, when=sibling_is_saved))
    with pytest.raises(RuntimeError, match="nobody foresaw this"):
        await run(graph)
    # A new process has a new graph.
    output = await resume(react(saver, model, count, sender(sent, crashes=1)))
    assert output["final_answer"] == "Done."
    assert results(output) == ["one", "sent x"]
    assert counted == ["one"]
    assert len(sent) == 2
    assert sent[0] == sent[1]


async def test_keys_differ_between_calls_turns_and_threads(saver: AsyncPostgresSaver) -> None:
    sent: list[CallContext] = []
    # The ids of the calls are the same each time, as a provider's that counts within a reply.
    thought = calling("Two.", ("send", {"text": "x"}), ("send", {"text": "x"}))
    model = ScriptedChatModel(replies=[thought, thought, "Sent."] * 3)
    graph = react(saver, model, sender(sent))
    for thread in ("one", "one", "two"):
        await run(graph, thread=thread)
    assert len(sent) == 12
    assert len({context.idempotency_key for context in sent}) == 12


async def test_a_new_message_after_a_crash_does_not_execute_the_old_calls(
    saver: AsyncPostgresSaver,
) -> None:
    sent: list[CallContext] = []
    thought = calling("Both.", ("version", {}), ("send", {"text": "x"}))
    model = ScriptedChatModel(replies=[thought, calling("I look.", ("version", {})), "Never mind."])
    graph = react(saver, model, version, sender(sent, crashes=1))
    with pytest.raises(RuntimeError):
        await run(graph, ask("Send it", reflection="never"))
    output = await run(graph, ask("Leave it", reflection="never"))
    assert len(sent) == 1
    assert (output["success"], output["iterations"], len(output["trace"])) == (True, 2, 2)
    # Providers refuse a history with a call that has no reply.
    assert [message.type for message in before_note(model.prompts[1])] == ["system", "human", "human"]


async def test_a_thread_continues_after_a_cancelled_action(saver: AsyncPostgresSaver) -> None:
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        """Never end."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    model = ScriptedChatModel(replies=[calling("I wait.", ("hang", {})), "Still here."])
    graph = react(saver, model, hang)
    running = asyncio.create_task(run(graph))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await graph.aget_state(on())).next == ("act",)
    assert (await run(graph, ask("Hello?")))["final_answer"] == "Still here."


# --- The thread -------------------------------------------------------------------------------------------


async def test_the_next_turn_sees_questions_and_answers_but_no_tool_messages(
    saver: AsyncPostgresSaver,
) -> None:
    model = ScriptedChatModel(
        replies=[calling("I look.", ("look_up", {"query": "export"})), DONE, "As I said: batches."]
    )
    graph = react(saver, model, look_up)
    await run(graph, ask())
    output = await run(graph, ask("Again, please"))
    told = texts(before_note(model.prompts[2]))[1:]
    assert told == ["Why does the export fail?", "Use batches.", "Again, please"]
    assert (output["task"], output["iterations"], len(output["trace"])) == ("Again, please", 1, 1)
    assert [message.type for message in output["messages"]] == ["human", "ai", "tool", "ai", "human", "ai"]


async def test_a_turn_sees_nothing_of_the_last_runs_input(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(
        replies=[
            *(calling("I look.", ("version", {})), AIMessage(""), AIMessage("")),
            *(calling("I look.", ("version", {})), more_to_do("Go on."), AIMessage(""), "2.4.1"),
        ]
    )
    graph = react(saver, model, version)
    first = await run(graph, ask(max_iterations=2, reflection="never"))
    assert first["reason_incomplete"] == "model_reply_unreadable"
    # Neither the limit nor the mode of the last turn: this one reflects, and may be told of a bad reply.
    second = await run(graph, ask())
    assert (second["success"], second["reason_incomplete"]) == (True, None)
    assert [entry["iteration"] for entry in second["trace"]] == [1, 2]
    values = (await graph.aget_state(on())).values
    assert (values["max_iterations"], values["reflection"]) == (10, "always")


async def test_threads_know_nothing_of_each_other(saver: AsyncPostgresSaver) -> None:
    model = ScriptedChatModel(replies=["Hello, Ana.", "Hello."])
    graph = react(saver, model)
    await run(graph, ask("I am Ana"), thread="one")
    output = await run(graph, ask("Who am I?"), thread="two")
    assert texts(output["messages"]) == ["Who am I?", "Hello."]


async def test_the_state_read_back_is_what_was_written(
    pool: Pool, saver: AsyncPostgresSaver, caplog: pytest.LogCaptureFixture
) -> None:
    thought = calling("I look.", ("look_up", {"query": "ação 👋"}), ("ask_crm", {"text": "x"}))
    graph = react(saver, ScriptedChatModel(replies=[thought, more_to_do("Hm."), "Olá 👋"]), look_up, ask_crm)
    with caplog.at_level(logging.WARNING):
        *_, written = [values async for values in graph.astream(ask(), on(), stream_mode="values")]
        fresh = react(await saver_on(pool), ScriptedChatModel(), look_up, ask_crm)
        steps = [step async for step in fresh.aget_state_history(on())]
    read = steps[0].values
    assert {name: read[name] for name in written} == written
    assert [type(message) for message in read["messages"]] == [type(each) for each in written["messages"]]
    plain = {name: value for name, value in read.items() if name != "messages"}
    assert json.loads(json.dumps(plain)) == plain
    assert len(steps) > 6
    # Without a CRM and a memory the agent is told nothing, which is no fault of the checkpoint.
    assert [record for record in caplog.records if not record.name.startswith("nodes.")] == []


@pytest.mark.parametrize("bad", ["\0", "\ud83d"])
async def test_text_that_postgres_cannot_keep_does_not_end_the_run(
    saver: AsyncPostgresSaver, bad: str
) -> None:
    @tool
    async def echo(text: str) -> str:
        """Say it again."""
        return text

    thought = calling("I say it.", ("echo", {"text": f"a{bad}b"}))
    thought.content = f"I say{bad} it."
    ending = AIMessage(f"So{bad}: ab")
    graph = react(saver, ScriptedChatModel(replies=[thought, ending]), echo)
    output = await run(graph, ask(reflection="never") | {"task": f"Say a{bad}b"})
    assert (output["task"], output["final_answer"]) == ("Say ab", "So: ab")
    assert [message.type for message in output["messages"]] == ["human", "ai", "tool", "ai"]
    assert (await graph.aget_state(on())).values["final_answer"] == "So: ab"


# --- The stream -------------------------------------------------------------------------------------------


async def test_tags_tell_thoughts_from_the_answer(saver: AsyncPostgresSaver) -> None:
    early = Reflection(success=True, reasoning="Not yet.", task_complete=False, final_answer="Perhaps 2.4?")
    replies = [calling("I look it up.", ("version", {})), early, "<reply>It is 2.4.1."]
    graph = react(saver, ScriptedChatModel(replies=replies), version)
    found: dict[tuple[str, str], str] = {}
    calls: list[str] = []
    resets: list[Any] = []
    async for part in graph.astream(ask(), on(), stream_mode=["messages", "custom"], version="v2"):
        if part["type"] == "custom":
            resets.append(part["data"])
        elif part["type"] == "messages":
            chunk, metadata = part["data"]
            if not isinstance(chunk, AIMessageChunk):
                continue
            [tag] = metadata["tags"]
            key = (metadata["langgraph_node"], tag)
            found[key] = found.get(key, "") + (get_reasoning(chunk) if tag == "thought" else chunk.text)
            assert tag != "thought" or chunk.text == ""
            calls += [call["name"] or "" for call in chunk.tool_call_chunks]
            if key == ("reflect", "answer"):
                void = chunk.id
    assert json.loads(found.pop(("reflect", "structured")))["reasoning"] == "Not yet."
    assert found == {
        ("think", "thought"): "I look it up.",
        ("reflect", "answer"): "Perhaps 2.4?",
        ("think", "answer"): "It is 2.4.1.",
    }
    assert calls == ["version"]
    # The task went on, so that this was no answer.
    assert resets == [{"event": "reset", "message_id": void}]
    last = (await graph.aget_state(on())).values["messages"][-1]
    assert last.content == "It is 2.4.1."


async def test_streamed_tokens_carry_the_id_of_the_message_they_become(saver: AsyncPostgresSaver) -> None:
    graph = react(saver, ScriptedChatModel(replies=["It is 2.4.1."]))
    ids = {
        chunk.id
        async for chunk, _ in graph.astream(ask(), on(), stream_mode="messages")
        if isinstance(chunk, AIMessageChunk)
    }
    last = (await graph.aget_state(on())).values["messages"][-1]
    assert isinstance(last, AIMessage)
    assert ids == {last.id}
