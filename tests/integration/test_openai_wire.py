"""The real OpenAI adapter over a real socket: what is sent, and what a caller sees when things go wrong."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from core.errors import ModelMisconfigured, ModelRefused, ModelUnavailable
from core.models import ChatModels, build_chat_models, is_truncated
from core.models.calls import ModelSpec
from core.models.reasoning import get_reasoning
from core.settings import FeatureSettings, ModelSettings
from tests.support.exchange import Raw
from tests.support.openai_api import (
    Error,
    OpenAIServer,
    Refusal,
    Response,
    Text,
    ToolCall,
    build_event,
    encode_events,
    openai_server,
)

# The SDK serialises its own objects, also those with wrong types from the wire.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

KEY = "sk-TestKeyOfNobody"
CONVERSATION: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Where is my order?")]
CUT = "the stream ended before the reply was complete"


class Intent(BaseModel):
    name: str
    urgent: bool


WHOLE = '{"name": "order", "urgent": true}'


@tool
def find_order(number: str) -> str:
    """Find an order by its number."""
    return f"order {number}"


TOOLS: list[BaseTool] = [find_order]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIServer]:
    async with openai_server() as opened:
        monkeypatch.setenv("OPENAI_BASE_URL", opened.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield opened


@pytest.fixture
async def models(server: OpenAIServer) -> AsyncIterator[ChatModels]:
    """The service's own models, without pauses between attempts."""
    settings = ModelSettings(_env_file=None, model="openai:test", model_max_output_tokens=700)
    built = build_chat_models(settings, FeatureSettings(_env_file=None))
    models = ChatModels(built.info, built._factory, first_pause=0)
    yield models
    await models.aclose()


async def stream(models: ChatModels, *tools: BaseTool) -> tuple[AIMessage, list[tuple[str, str]]]:
    """The reply to the conversation in a graph, and what a client sees of it: tags and texts, and resets."""

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await models.reply(state["messages"], temperature=0, tools=tools)]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    start: MessagesState = {"messages": [HumanMessage("Where is my order?")]}
    seen: list[tuple[str, str]] = []
    reply = AIMessage("")
    async for mode, part in graph.astream(start, stream_mode=["messages", "custom", "values"]):
        match mode, part:
            case "messages", (AIMessageChunk() as chunk, {"tags": [tag]}):
                seen += [(tag, text)] if (text := get_reasoning(chunk) or chunk.text) else []
            case "messages", (AIMessage() as whole, _):
                seen.append(("untagged", whole.text))
            case "custom", {"event": event}:
                seen.append((event, ""))
            case "values", {"messages": [*_, AIMessage() as last]}:
                reply = last
    return reply, seen


async def test_think_blocks_are_thoughts(server: OpenAIServer, models: ChatModels) -> None:
    server.enqueue(Text(["<thi", "nk>They ask.</th", "ink>\n", "\nIt", " left."]))
    reply, seen = await stream(models)
    assert seen == [("thought", "They ask."), ("answer", "It"), ("answer", " left.")]
    assert (reply.content, get_reasoning(reply)) == ("It left.", "They ask.")


async def test_native_reasoning_is_never_part_of_the_answer(server: OpenAIServer, models: ChatModels) -> None:
    events = [
        build_event({"role": "assistant", "content": None, "reasoning_content": "They ask."}),
        build_event({"content": "It left."}),
        build_event({}, "stop"),
    ]
    server.enqueue(Raw(encode_events(iter(events))))
    reply, seen = await stream(models)
    assert [each for each in seen if each[0] != "thought"] == [("answer", "It left.")]
    assert reply.content == "It left."


async def test_the_words_before_a_tool_call_are_a_thought(server: OpenAIServer, models: ChatModels) -> None:
    function = {"name": "find_order", "arguments": '{"number": "7"}'}
    call = {"index": 0, "id": "call-1", "type": "function", "function": function}
    events = [
        build_event({"role": "assistant", "content": "I will use"}),
        build_event({"content": " find_order."}),
        build_event({"tool_calls": [call]}),
        build_event({}, "tool_calls"),
    ]
    server.enqueue(Raw(encode_events(iter(events))))
    reply, seen = await stream(models, *TOOLS)
    assert seen == [("thought", "I will use find_order.")]
    assert (reply.text, reply.tool_calls[0]["args"]) == ("I will use find_order.", {"number": "7"})


async def test_an_answer_that_broke_off_is_cleared_before_the_next_attempt(
    server: OpenAIServer, models: ChatModels
) -> None:
    server.enqueue(Text(["It is", " not"], None), Text(["It left."]))
    reply, seen = await stream(models)
    assert seen == [("answer", "It is"), ("answer", " not"), ("reset", ""), ("answer", "It left.")]
    assert reply.text == "It left."
    # Held back until it is known to be one, because a tool call may follow, an answer needs no reset.
    server.enqueue(Text(["It is", " not"], None), Text(["It", " left."]))
    assert (await stream(models, *TOOLS))[1] == [("answer", "It left.")]


async def test_a_reply_arrives_whole_and_the_request_has_temperature_and_output_limit(
    server: OpenAIServer, models: ChatModels
) -> None:
    server.enqueue(Text(["It is", " on its way."]))
    reply = await models.reply(CONVERSATION, temperature=0.2)
    assert type(reply) is AIMessage
    assert reply.text == "It is on its way."
    assert reply.response_metadata["finish_reason"] == "STOP"
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["total_tokens"] == 12
    [request] = server.requests
    assert request["stream"] is True
    assert request["temperature"] == 0.2
    assert request["max_completion_tokens"] == 700


async def test_only_the_services_own_limit_ends_a_model_that_thinks_for_long(models: ChatModels) -> None:
    chat: Any = models._factory(ModelSpec(name="openai:test", temperature=0, thinking=False))
    assert chat.stream_chunk_timeout is None
    assert chat.request_timeout == ModelSettings(_env_file=None).model_timeout_seconds


async def test_a_tool_call_and_a_structured_value_arrive(server: OpenAIServer, models: ChatModels) -> None:
    server.enqueue(ToolCall("find_order", '{"number": "7"}'), Text([WHOLE[:9], WHOLE[9:]]))
    call = await models.reply(CONVERSATION, temperature=0, tools=TOOLS)
    assert [(each["name"], each["args"]) for each in call.tool_calls] == [("find_order", {"number": "7"})]
    reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert (reply.value, reply.error) == (Intent(name="order", urgent=True), None)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Text(["I would", " rather chat."]), "not valid JSON"),
        (Text(['{"name": ', "order"]), "not valid JSON"),
        (Text(['{"name": "order"}']), "urgent: Field required"),
        (Text(['["order"]']), "did not fit the schema"),
        (Text(['{"name": {"a": 1}, "urgent": "perhaps"}']), "did not fit the schema"),
        (Text([""]), "empty"),
        (Text(['{"name": "order", "urg'], "length"), "output limit"),
        (Text([WHOLE], "length"), "output limit"),
    ],
    ids=repr,
)
async def test_a_structured_reply_that_cannot_be_read_is_returned_with_the_reason(
    server: OpenAIServer, models: ChatModels, response: Response, words: str
) -> None:
    server.enqueue(response)
    reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert reply.value is None
    assert words in (reply.error or "")
    assert len(reply.error or "") < 300
    assert reply.raw.id
    assert len(server.requests) == 1


@pytest.mark.parametrize("response", [Refusal("I cannot help."), Text([WHOLE], "content_filter")], ids=repr)
async def test_a_refused_structured_reply_is_a_refusal(
    server: OpenAIServer, models: ChatModels, response: Response
) -> None:
    server.enqueue(response)
    with pytest.raises(ModelRefused):
        await models.reply_structured(CONVERSATION, Intent, temperature=0)


async def test_a_reply_cut_at_the_output_limit_says_so(server: OpenAIServer, models: ChatModels) -> None:
    server.enqueue(Text(["Once upon"], "length"))
    assert is_truncated(await models.reply(CONVERSATION, temperature=0))


BROKEN = [
    Text(['{"name": "or'], None),
    Text([], None),
    Raw(b""),
    Raw(b"", ends=False),
    Raw(b'data: {"choices": [{"delta": {"content": "Your or'),
    Raw(b'data: {"choices": [{"delta": {"content": "Your or"}}]}\n\n', ends=False),
    Raw(b"data: <html>gateway</html>\n\n"),
    Raw(b'data: {"choices": "none"}\n\n'),
    Raw(b'data: {"choices": [{"index": 0, "delta": 5, "finish_reason": "stop"}]}\n\n'),
    Raw(b"\xff\xfe\x00"),
    Error(503),
    Error(500, in_stream=True),
    Error(429),
]


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("fault", BROKEN, ids=repr)
async def test_a_broken_stream_costs_one_more_request(
    server: OpenAIServer, models: ChatModels, fault: Response, structured: bool
) -> None:
    server.enqueue(fault, Text([WHOLE]))
    if structured:
        reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
        assert reply.value == Intent(name="order", urgent=True)
    else:
        assert (await models.reply(CONVERSATION, temperature=0)).text == WHOLE
    assert len(server.requests) == 2


async def test_a_stream_that_never_finishes_is_unavailable_after_three_requests(
    server: OpenAIServer, models: ChatModels
) -> None:
    server.enqueue(*[Text(["Your or"], None)] * 3)
    with pytest.raises(ModelUnavailable) as caught:
        await models.reply(CONVERSATION, temperature=0)
    assert caught.value.details == {"model": "openai:test", "attempts": 3, "reason": CUT}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Error(500, in_stream=True), "the provider reported an error in the stream"),
        (Raw(b"", ends=False), "the connection failed (OpenAIConnectionError)"),
    ],
)
async def test_the_reason_tells_an_error_in_the_stream_from_a_lost_connection(
    server: OpenAIServer, models: ChatModels, fault: Response, reason: str
) -> None:
    server.enqueue(*[fault] * 3)
    with pytest.raises(ModelUnavailable) as caught:
        await models.reply(CONVERSATION, temperature=0)
    assert caught.value.details["reason"] == reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_rejected_request_is_reported_at_once(
    server: OpenAIServer, models: ChatModels, status: int
) -> None:
    server.enqueue(Error(status))
    with pytest.raises(ModelMisconfigured) as caught:
        await models.reply(CONVERSATION, temperature=0)
    assert KEY not in caught.value.message
    assert len(server.requests) == 1
