"""The real Gemini adapter over a real socket: what is sent, and what a caller sees when things go wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, SecretStr

from core.errors import ModelMisconfigured, ModelRefused, ModelUnavailable
from core.models import ChatModels, Role, build_chat_models
from core.settings import FeatureSettings, ModelSettings
from tests.support.gemini import (
    Blocked,
    Cut,
    Error,
    FunctionCalls,
    Gated,
    GeminiServer,
    Malformed,
    Response,
    Silence,
    Structured,
    Text,
    gemini_server,
)

KEY = "AIzaTestKeyOfNobody"
FALLBACK = "google_genai:gemini-2.5-flash"
CONVERSATION: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Where is my order?")]


class Intent(BaseModel):
    name: str
    urgent: bool


@tool
def find_order(number: str, limit: int = 3) -> str:
    """Find an order by its number."""
    return f"order {number}, {limit}"


@tool
def find_customer(email: str) -> str:
    """Find a customer by e-mail."""
    return email


TOOLS: list[BaseTool] = [find_order, find_customer]


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with gemini_server() as opened:
        yield opened


@asynccontextmanager
async def models_at(
    server: GeminiServer, *, timeout: float = 60, thinking: bool = True, **values: Any
) -> AsyncIterator[ChatModels]:
    """The service's own models from settings, without pauses between attempts."""
    settings = ModelSettings(
        _env_file=None,
        google_api_key=SecretStr(KEY),
        google_base_url=server.url,
        model_timeout_seconds=timeout,
        **values,
    )
    models = build_chat_models(settings, FeatureSettings(_env_file=None, thinking=thinking))
    models = ChatModels(models.info, models._factory, timeout=timeout, thinking=thinking, first_pause=0)
    try:
        yield models
    finally:
        await models.aclose()


@pytest.fixture
async def models(server: GeminiServer) -> AsyncIterator[ChatModels]:
    async with models_at(server) as built:
        yield built


# What is sent


async def test_a_request_has_the_system_instruction_temperature_and_key(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(Text(["It is", " on its way."]))
    reply = await models.reply(CONVERSATION, temperature=0.2)
    assert type(reply) is AIMessage
    assert reply.text == "It is on its way."
    assert reply.id
    assert reply.usage_metadata is not None
    assert (reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"]) == (10, 2)
    assert reply.response_metadata["finish_reason"] == "STOP"
    [request] = server.requests
    assert (request.model, request.method) == ("gemini-3.8-flash", "streamGenerateContent")
    assert request.headers["x-goog-api-key"] == KEY
    assert request.system == "Be brief."
    assert request.contents == [("user", "Where is my order?")]
    assert request.temperature == 0.2
    assert request.config["maxOutputTokens"] == 4_096
    assert request.functions == {}


@pytest.mark.parametrize(
    ("role", "setting", "sent"),
    [
        ("reasoning", 8_192, 8_192),
        ("reasoning", 20_000, 20_000),
        ("chat", 20_000, 4_096),
        ("chat", 1_000, 1_000),
        ("reading", 8_192, 2_048),
    ],
)
async def test_a_reply_is_as_long_as_its_kind_needs_and_never_longer_than_the_setting(
    server: GeminiServer, role: Role, setting: int, sent: int
) -> None:
    chosen = ModelSettings(
        google_api_key=SecretStr(KEY), google_base_url=server.url, model_max_output_tokens=setting
    )
    models = build_chat_models(chosen, FeatureSettings())
    server.enqueue(Text(["Yes."]))
    await models.reply(CONVERSATION, temperature=0, role=role)
    await models.aclose()
    assert server.requests[0].config["maxOutputTokens"] == sent


@pytest.mark.parametrize(
    ("model", "role", "thinking"),
    [
        ("gemini-3.8-flash", "chat", "low"),
        ("gemini-3.8-flash", "reasoning", "medium"),
        ("gemini-3.5-flash", "chat", "minimal"),
        ("gemini-3.5-flash", "reasoning", "medium"),
        ("gemini-3-pro-preview", "reasoning", "high"),
        ("gemini-3.1-pro-preview", "chat", "low"),
        ("gemini-4-argon", "reasoning", "medium"),
        ("gemini-2.5-flash", "chat", 0),
        ("gemini-2.5-flash", "reasoning", -1),
        ("gemini-2.5-pro", "chat", 128),
        ("gemini-2.0-flash", "reasoning", None),
        ("gemini-flash-latest", "chat", None),
    ],
)
async def test_thinking_is_requested_in_the_way_each_gemini_accepts(
    server: GeminiServer, models: ChatModels, model: str, role: Role, thinking: str | int | None
) -> None:
    server.enqueue(Text(["Yes."]))
    await models.reply(CONVERSATION, temperature=0, role=role, model=f"google_genai:{model}")
    assert server.requests[0].thinking == thinking


async def test_thinking_switched_off_is_off_for_reasoning_too(server: GeminiServer) -> None:
    server.enqueue(Text(["Yes."]))
    async with models_at(server, thinking=False) as models:
        await models.reply(CONVERSATION, temperature=0, role="reasoning")
    assert server.requests[0].thinking == "low"


@pytest.mark.parametrize("model", ["gemini-3.6-flash", "gemini-3.5-flash-lite", "gemini-4-argon"])
async def test_a_model_with_a_fixed_temperature_is_not_sent_one(
    server: GeminiServer, models: ChatModels, model: str
) -> None:
    server.enqueue(Text(["Yes."]))
    await models.reply(CONVERSATION, temperature=0.2, model=f"google_genai:{model}")
    assert server.requests[0].temperature is None


async def test_the_model_may_call_several_tools_at_once(server: GeminiServer, models: ChatModels) -> None:
    server.enqueue(
        FunctionCalls(
            [("find_order", {"number": "7"}), ("find_customer", {"email": "a@b.c"})], text="Looking."
        )
    )
    reply = await models.reply(CONVERSATION, temperature=0, tools=TOOLS)
    assert reply.text == "Looking."
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [
        ("find_order", {"number": "7"}),
        ("find_customer", {"email": "a@b.c"}),
    ]
    assert len({call["id"] for call in reply.tool_calls}) == 2
    functions = server.requests[0].functions
    assert functions.keys() == {"find_order", "find_customer"}
    assert functions["find_order"]["description"] == "Find an order by its number."
    assert functions["find_order"]["parameters"]["required"] == ["number"]


async def test_a_tools_result_is_sent_with_the_signature_of_its_call_even_from_a_checkpoint(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(
        FunctionCalls([("find_order", {"number": "7"})], signature="c2lnbmVk"), Text(["On its way."])
    )
    call = await models.reply(CONVERSATION, temperature=0, tools=TOOLS)
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    call = serde.loads_typed(serde.dumps_typed(call))
    answer = ToolMessage("shipped", tool_call_id=call.tool_calls[0]["id"], name="find_order")
    await models.reply([*CONVERSATION, call, answer], temperature=0, tools=TOOLS)
    sent, returned = server.requests[1].parts[1:]
    assert sent["functionCall"]["args"] == {"number": "7"}
    assert sent["thoughtSignature"] == "c2lnbmVk"
    assert returned["functionResponse"]["name"] == "find_order"


async def test_a_structured_reply_is_requested_by_its_schema_and_returned_typed(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(Structured(Intent(name="order", urgent=True)))
    reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert (reply.value, reply.error) == (Intent(name="order", urgent=True), None)
    assert reply.raw.id
    [request] = server.requests
    assert request.method == "streamGenerateContent"
    assert request.config["responseMimeType"] == "application/json"
    assert request.config["responseJsonSchema"]["required"] == ["name", "urgent"]


# Streaming


async def test_the_first_token_is_streamed_before_the_second_exists(
    server: GeminiServer, models: ChatModels
) -> None:
    gated = Gated(["Your order", " left", " today."])
    server.enqueue(gated)

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await models.reply(state["messages"], temperature=0)]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    start: MessagesState = {"messages": [HumanMessage("hi")]}
    seen: list[tuple[str, int]] = []
    ids: set[str | None] = set()
    async for part in graph.astream(start, stream_mode="messages"):
        assert isinstance(part, tuple)
        message = part[0]
        ids.add(message.id)
        if message.text:
            seen.append((message.text, gated.sent))
            gated.release()
    assert seen == [("Your order", 1), (" left", 2), (" today.", 3)]
    assert len(ids) == 1


async def test_a_structured_reply_streams_too(server: GeminiServer, models: ChatModels) -> None:
    server.enqueue(Structured(Intent(name="order", urgent=True)))

    async def classify(state: MessagesState) -> dict[str, list[AIMessage]]:
        reply = await models.reply_structured(state["messages"], Intent, temperature=0)
        return {"messages": [AIMessage(reply.value.name if reply.value else "none", id="answer")]}

    graph = StateGraph(MessagesState).add_node("classify", classify).add_edge(START, "classify").compile()
    start: MessagesState = {"messages": [HumanMessage("hi")]}
    pieces: list[str] = []
    async for part in graph.astream(start, stream_mode="messages"):
        assert isinstance(part, tuple)
        if isinstance(part[0], AIMessageChunk) and part[0].text:
            pieces.append(part[0].text)
    assert len(pieces) == 2
    assert Intent.model_validate_json("".join(pieces)) == Intent(name="order", urgent=True)


async def test_a_hundred_replies_in_progress_do_not_delay_the_next(
    server: GeminiServer, models: ChatModels
) -> None:
    gated = [Gated(["Your order", " left."]) for _ in range(101)]
    server.enqueue(*gated)
    calls = [asyncio.create_task(models.reply(CONVERSATION, temperature=0)) for _ in gated]
    await asyncio.wait_for(asyncio.gather(*(each.started.wait() for each in gated)), 60)
    for each in gated:
        each.release()
    assert {reply.text for reply in await asyncio.gather(*calls)} == {"Your order left."}


async def test_a_caller_who_leaves_stops_the_request_to_the_provider(
    server: GeminiServer, models: ChatModels
) -> None:
    gated = Gated(["Your order", " left."])
    server.enqueue(gated)
    call = asyncio.create_task(models.reply(CONVERSATION, temperature=0))
    await gated.started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(gated.abandoned.wait(), 60)
    assert len(server.requests) == 1


# What passes unnoticed

PASSING = [
    Error.rate_limited(),
    Error.rate_limited(retry_seconds=None),
    Error.internal(),
    Error.overloaded(),
    Error(503, "UNAVAILABLE", pieces=["Your or"]),
    Cut(["Your or"]),
    Cut(["Your or"], how="half_event"),
    Cut(["Your or"], how="silent"),
    Cut([]),
    Cut([], how="silent"),
    Text([""], finish_reason="MALFORMED_FUNCTION_CALL"),
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
async def test_a_transient_error_costs_one_more_request_and_leaves_no_trace(
    server: GeminiServer, models: ChatModels, fault: Response
) -> None:
    server.enqueue(fault, Text(["Your order", " left."]))
    reply = await models.reply(CONVERSATION, temperature=0)
    assert reply.text == "Your order left."
    assert len(server.requests) == 2


async def test_a_transient_error_of_a_structured_reply_is_retried(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(
        Error.overloaded(), Cut(['{"name"'], how="silent"), Structured(Intent(name="x", urgent=False))
    )
    reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert reply.value == Intent(name="x", urgent=False)
    assert len(server.requests) == 3


async def test_a_timeout_is_retried(server: GeminiServer) -> None:
    server.enqueue(Silence(), Text(["Here."]))
    async with models_at(server, timeout=0.3) as models:
        assert (await models.reply(CONVERSATION, temperature=0)).text == "Here."
    assert len(server.requests) == 2


# What lasts


@pytest.mark.parametrize(
    ("fault", "reason", "retry_after"),
    [
        (Error.rate_limited(retry_seconds=7), "429 RESOURCE_EXHAUSTED", 7),
        (Error.overloaded(), "503 UNAVAILABLE", 15),
        (Error.internal(), "500 INTERNAL", 15),
        (Cut(["Your"]), "the stream ended before the reply was complete", 15),
    ],
    ids=repr,
)
async def test_a_lasting_error_ends_after_three_requests_with_a_retry_time(
    server: GeminiServer, models: ChatModels, fault: Response, reason: str, retry_after: float
) -> None:
    server.enqueue(*[fault] * 9)
    with pytest.raises(ModelUnavailable) as caught:
        await models.reply(CONVERSATION, temperature=0)
    assert len(server.requests) == 3
    assert caught.value.details == {"model": models.info.model, "attempts": 3, "reason": reason}
    assert caught.value.retry_after == retry_after


async def test_a_provider_that_cannot_be_reached_is_unavailable(server: GeminiServer) -> None:
    async with gemini_server() as gone:
        url = gone.url
    server.url = url
    async with models_at(server) as models:
        with pytest.raises(ModelUnavailable) as caught:
            await models.reply(CONVERSATION, temperature=0)
    assert caught.value.details["reason"] == "the connection failed (ConnectError)"


async def test_the_fallback_answers_when_the_model_stays_overloaded(server: GeminiServer) -> None:
    server.enqueue(*[Error.overloaded()] * 3, Text(["Here I am."]))
    async with models_at(server, fallback_model=FALLBACK) as models:
        reply = await models.reply(CONVERSATION, temperature=0, tools=TOOLS)
    assert reply.text == "Here I am."
    assert [request.model for request in server.requests] == ["gemini-3.8-flash"] * 3 + ["gemini-2.5-flash"]
    assert server.requests[-1].functions.keys() == {"find_order", "find_customer"}


async def test_the_attempts_at_the_fallback_are_bounded_too(server: GeminiServer) -> None:
    server.enqueue(*[Error.overloaded()] * 9)
    async with models_at(server, fallback_model=FALLBACK) as models:
        with pytest.raises(ModelUnavailable) as caught:
            await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert len(server.requests) == 6
    assert caught.value.details["fallback"] == {"model": FALLBACK, "reason": "503 UNAVAILABLE"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Error.invalid_key(), "check the provider's API key"),
        (Error.forbidden(), "Your API key was reported as leaked"),
        (Error.unknown_model("gemini-9"), "check the model's name"),
        (Error(400, "INVALID_ARGUMENT", "Invalid value at 'contents'"), "Invalid value at 'contents'"),
    ],
    ids=repr,
)
async def test_a_key_name_or_request_that_the_provider_rejects_is_reported_at_once(
    server: GeminiServer, fault: Response, words: str
) -> None:
    server.enqueue(fault, Text(["never"]))
    async with models_at(server, fallback_model=FALLBACK) as models:
        with pytest.raises(ModelMisconfigured) as caught:
            await models.reply(CONVERSATION, temperature=0)
    assert words in caught.value.message
    assert KEY not in f"{caught.value.message}{caught.value.details}"
    assert len(server.requests) == 1


# What the provider blocks


@pytest.mark.parametrize(
    ("response", "what", "reason"),
    [
        (Blocked(), "prompt", "SAFETY"),
        (Blocked(reason="PROHIBITED_CONTENT"), "prompt", "PROHIBITED_CONTENT"),
        (Blocked("reply"), "reply", "SAFETY"),
        (Blocked("reply", "RECITATION"), "reply", "RECITATION"),
        (Blocked("reply", "SPII"), "reply", "SPII"),
        (Blocked("reply", "BLOCKLIST"), "reply", "BLOCKLIST"),
    ],
)
async def test_a_blocked_prompt_or_reply_is_neither_retried_nor_sent_to_the_fallback(
    server: GeminiServer, response: Response, what: str, reason: str
) -> None:
    async with models_at(server, fallback_model=FALLBACK) as models:
        server.enqueue(response, response)
        with pytest.raises(ModelRefused) as chat:
            await models.reply(CONVERSATION, temperature=0)
        with pytest.raises(ModelRefused) as structured:
            await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert len(server.requests) == 2
    for caught in (chat, structured):
        assert caught.value.details == {"model": models.info.model, "blocked": what, "reason": reason}


async def test_the_part_of_a_reply_before_a_block_is_kept_and_can_be_checkpointed(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(Blocked("reply", pieces=["Once upon a time"]))
    reply = await models.reply(CONVERSATION, temperature=0)
    assert reply.text == "Once upon a time"
    assert reply.response_metadata["finish_reason"] == "SAFETY"
    assert type(reply.response_metadata["safety_ratings"][0]["category"]) is str
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    assert serde.loads_typed(serde.dumps_typed(reply)) == reply


async def test_half_a_value_before_a_block_is_a_refusal(server: GeminiServer, models: ChatModels) -> None:
    server.enqueue(Blocked("reply", pieces=['{"name": "order", ', '"urgent": true}']))
    with pytest.raises(ModelRefused):
        await models.reply_structured(CONVERSATION, Intent, temperature=0)


# What does not parse


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Malformed(), "not valid JSON"),
        (Malformed('{"name": "order", "urgent": true'), "not valid JSON"),
        (Malformed("I would rather chat."), "not valid JSON"),
        (Malformed('{"name": "order"}'), "urgent: Field required"),
        (Malformed('["order"]'), "did not fit the schema"),
        (Malformed(""), "empty"),
        (Text(['{"name": "order", "urgent": true}'], finish_reason="MAX_TOKENS"), "output limit"),
    ],
    ids=repr,
)
async def test_a_reply_that_does_not_parse_is_returned_with_the_reason(
    server: GeminiServer, models: ChatModels, response: Response, words: str
) -> None:
    server.enqueue(response)
    reply = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert reply.value is None
    assert words in (reply.error or "")
    assert len(reply.error or "") < 300
    assert reply.raw.id
    assert len(server.requests) == 1
