"""What LangGraph's clients read of a run's parts, in both of their APIs."""

from itertools import pairwise
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langgraph.types import Interrupt
from pydantic import ValidationError

from service.agent_server.message_events import MessageEvents
from service.agent_server.protocol_events import ProtocolEvents
from service.agent_server.run_events import ApiEvents
from service.agent_server.subscriptions import Subscription
from service.runs.log.run_log import (
    PART_MICROSECONDS,
    LoggedPart,
    NumberedPart,
    RunLog,
    build_attempt_part,
    build_end_part,
)

MODEL = {"ls_model_type": "chat"}
QUESTION = Interrupt(value="May I?", id="q1")
EVERYTHING = Subscription(
    channels=[
        "values",
        "updates",
        "messages",
        "tools",
        "lifecycle",
        "input",
        "checkpoints",
        "tasks",
        "custom",
    ]
)


def part(kind: str, data: Any, *namespace: str, **more: Any) -> Any:
    return {"type": kind, "ns": namespace, "data": data, **more}


def read(parts: list[LoggedPart], *modes: str, subgraphs: bool = False, after: int = 0) -> list[Any]:
    events = ApiEvents("r1", modes, after=after)
    numbered = [build_attempt_part(1, modes, subgraphs=subgraphs), *parts]
    return [
        (event.name, event.data)
        for seq, each in enumerate(numbered, 10_000_001)
        for event in events.convert(NumberedPart(seq, each))
    ]


def follow(parts: list[LoggedPart], subscription: Subscription = EVERYTHING) -> list[Any]:
    events = ProtocolEvents("r1", "react", subscription)
    numbered = [build_attempt_part(1), *parts, build_end_part(None)]
    found = [
        event
        for seq, each in enumerate(numbered, 1)
        for event in events.convert(NumberedPart(seq, each, at=seq * PART_MICROSECONDS))
    ]
    return [*found, *events.list_questions(), *events.end(None)]


def show(events: list[Any]) -> list[Any]:
    return [
        (event["method"], "/".join(event["params"]["namespace"]), event["params"]["data"]) for event in events
    ]


def stream(*messages: BaseMessage, metadata: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    events = MessageEvents()
    found = [event for each in messages for event in events.add((), each, metadata or {})]
    return [*found, *events.finish(())]


def test_a_message_is_sent_as_far_as_it_has_come_and_once_more_when_it_is_complete() -> None:
    chunks = [AIMessageChunk(content=text, id="m1") for text in ("Use ", "batches.")]
    parts = [part("messages", (chunk, {"langgraph_node": "think"})) for chunk in chunks]
    whole = part("updates", {"think": {"messages": [AIMessage("Use batches.", id="m1")]}})
    events = read([*parts, whole], "messages")
    assert [name for name, _ in events] == [
        "metadata",
        "messages/metadata",
        "messages/partial",
        "messages/partial",
        "messages/complete",
    ]
    assert [data[0].text for name, data in events[2:]] == ["Use ", "Use batches.", "Use batches."]


def test_subgraphs_are_named_where_they_were_asked_for_and_left_out_elsewhere() -> None:
    parts = [part("updates", {"a": None}), part("updates", {"b": None}, "agent:1", "tools:2")]
    assert [name for name, _ in read(parts, "updates", subgraphs=True)[1:]] == [
        "updates",
        "updates|agent:1|tools:2",
    ]
    assert [name for name, _ in read(parts, "updates")[1:]] == ["updates"]


def test_a_question_is_an_event_whatever_was_asked_for() -> None:
    parts = [
        part("updates", {"think": None}),
        part("updates", {"__interrupt__": (QUESTION,)}),
        part("values", {"task": "x"}, interrupts=(QUESTION,)),
    ]
    assert read(parts, "values")[1:] == [
        ("updates", {"__interrupt__": (QUESTION,)}),
        ("values", {"task": "x", "__interrupt__": (QUESTION,)}),
    ]


def test_a_reply_has_its_thoughts_its_text_and_its_tool_calls_as_blocks() -> None:
    events = stream(
        AIMessageChunk(content=[{"type": "reasoning", "reasoning": "Hm.", "index": 0}], id="m1-thought"),
        AIMessageChunk(content="I look ", id="m1"),
        AIMessageChunk(
            content="it up.",
            id="m1",
            tool_call_chunks=[
                {"name": "search", "args": '{"q', "id": "c1", "index": 0, "type": "tool_call_chunk"}
            ],
        ),
        AIMessageChunk(
            content="",
            id="m1",
            tool_call_chunks=[
                {"name": None, "args": '": 1}', "id": None, "index": 0, "type": "tool_call_chunk"}
            ],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            chunk_position="last",
        ),
    )
    assert {event["message_id"] for event in events} == {"m1"}
    assert events[0]["event"] == "message-start"
    assert [
        (event["index"], event["content"]) for event in events if event["event"] == "content-block-finish"
    ] == [
        (0, {"type": "reasoning", "reasoning": "Hm.", "index": 0}),
        (1, {"type": "text", "text": "I look it up."}),
        (2, {"type": "tool_call", "id": "c1", "name": "search", "args": {"q": 1}}),
    ]
    assert events[-1]["event"] == "message-finish"
    assert events[-1]["usage"]["total_tokens"] == 3


def test_arguments_that_are_no_json_are_an_invalid_call() -> None:
    chunk = {"name": "search", "args": '{"q": ', "id": "c1", "index": 0, "type": "tool_call_chunk"}
    events = stream(AIMessageChunk(content="", id="m1", tool_call_chunks=[chunk]))
    assert events[-2]["content"]["type"] == "invalid_tool_call"


def test_messages_that_a_node_made_are_not_streamed_and_whole_ones_of_a_model_are() -> None:
    result, reply = ToolMessage("42", tool_call_id="c1"), AIMessage("Yes.", id="m1")
    assert stream(result) == stream(reply) == []
    assert [event["event"] for event in stream(reply, metadata=MODEL)] == [
        "message-start",
        "content-block-start",
        "content-block-delta",
        "content-block-finish",
        "message-finish",
    ]


def test_a_subgraph_begins_and_ends_and_says_which_tool_call_it_is_for() -> None:
    call = {"name": "task", "id": "c1", "args": {}}
    agent = {"lc_agent_name": "researcher"}
    events = follow(
        [
            part("tasks", {"id": "t1", "name": "tools", "input": {"tool_call": call}}),
            part("tasks", {"id": "t2", "name": "model", "input": {}, "metadata": agent}, "tools:t1"),
            part("tasks", {"id": "t1", "name": "tools", "result": {}, "error": None, "interrupts": []}),
        ]
    )
    assert [each for each in show(events) if each[0] == "lifecycle"] == [
        ("lifecycle", "", {"event": "running", "graph_name": "react"}),
        (
            "lifecycle",
            "tools:t1",
            {
                "event": "started",
                "graph_name": "researcher",
                "trigger_call_id": "t1",
                "cause": {"type": "toolCall", "tool_call_id": "c1"},
            },
        ),
        ("lifecycle", "tools:t1", {"event": "completed"}),
        ("lifecycle", "", {"graph_name": "react", "event": "failed", "error": "the run was rolled back"}),
    ]


def test_a_tool_is_named_by_the_models_call_also_where_it_was_given_arguments_alone() -> None:
    call = {"name": "search", "id": "c1", "args": {}}
    events = follow(
        [
            part("tasks", {"id": "t1", "name": "act", "input": {"call": call}}),
            part("tools", {"event": "tool-started", "tool_call_id": "run-7", "tool_name": "search"}),
            part("tools", {"event": "tool-finished", "tool_call_id": "run-7", "output": "42"}),
        ]
    )
    assert [data["tool_call_id"] for method, _, data in show(events) if method == "tools"] == ["c1", "c1"]


def test_a_question_comes_last_and_once_although_each_graph_around_it_says_it() -> None:
    events = follow(
        [
            part("updates", {"__interrupt__": (QUESTION,)}, "agent:1"),
            part("updates", {"__interrupt__": (QUESTION,)}),
            part("values", {}),
        ]
    )
    assert [event["method"] for event in events][-2:] == ["input.requested", "lifecycle"]
    [asked] = [event["params"] for event in events if event["method"] == "input.requested"]
    assert (asked["namespace"], asked["data"]["interrupt_id"], asked["data"]["payload"]) == (
        ["agent:1"],
        "q1",
        "May I?",
    )


def test_events_have_the_same_ids_and_numbers_whatever_else_their_reader_wants() -> None:
    parts = [
        part("tasks", {"id": "t1", "name": "tools", "input": {}}),
        part("messages", (AIMessageChunk(content="Hm", id="m1"), {}), "tools:t1"),
        part("tasks", {"id": "t2", "name": "model", "input": {}}, "tools:t1"),
        part("tasks", {"id": "t1", "name": "tools", "result": {}, "error": None, "interrupts": []}),
    ]
    everything = follow(parts)
    seqs = [event["seq"] for event in everything]
    assert seqs == sorted(set(seqs))
    few = follow(parts, Subscription(channels=["lifecycle"]))
    assert few == [event for event in everything if event["method"] == "lifecycle"]
    middle = seqs[len(seqs) // 2]
    rest = follow(parts, EVERYTHING.model_copy(update={"since": middle}))
    assert rest == [event for event in everything if event["seq"] > middle]


@pytest.mark.parametrize(
    ("subscription", "channel", "namespace", "wanted"),
    [
        ({"channels": ["custom"]}, "custom:progress", [], True),
        ({"channels": ["custom:progress"]}, "custom:other", [], False),
        ({"channels": ["values"], "namespaces": [["agent"]]}, "values", ["agent:1", "tools:2"], True),
        ({"channels": ["values"], "namespaces": [["agent:2"]]}, "values", ["agent:1"], False),
        (
            {"channels": ["values"], "namespaces": [["agent"]], "depth": 0},
            "values",
            ["agent:1", "b:2"],
            False,
        ),
        ({"channels": ["values"], "namespaces": [[]], "depth": 1}, "values", ["agent:1"], True),
        ({"channels": ["values"]}, "messages", [], False),
    ],
)
def test_a_subscription_is_for_channels_and_the_namespaces_below_prefixes(
    subscription: dict[str, Any], channel: str, namespace: list[str], wanted: bool
) -> None:
    assert Subscription(**subscription).wants(channel, namespace) is wanted


def test_a_channel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="there is no channel 'debug'"):
        Subscription(channels=["debug"])


def test_a_long_run_keeps_its_latest_parts_under_their_numbers() -> None:
    log = RunLog(1, keeps_values=True)
    for number in range(12_000):
        log.take(part("custom", number))
    kept = log.read(0)
    assert len(kept) <= 11_000
    assert [each.seq for each in kept] == list(range(kept[0].seq, kept[-1].seq + 1))
    assert kept[-1].part["data"] == 11_999
    assert kept[-1].seq == 10_012_001
    assert all(later.at - earlier.at >= PART_MICROSECONDS for earlier, later in pairwise(kept))
