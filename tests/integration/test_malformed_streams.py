"""Whatever a provider sends, a call ends with a reply, with an unreadable reply, or with a typed error."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr

from core.errors import ModelError
from core.models import ChatModels, build_chat_models
from core.settings import FeatureSettings, ModelSettings
from graphs.registry import REGISTRY
from tests.support.exchange import Json, Raw
from tests.support.gemini import GeminiServer, gemini_server
from tests.support.openai_api import OpenAIServer, Response, Text, build_event, openai_server
from tests.support.service import RunningService, running_service

# The SDK serialises its own objects, also those with wrong types from the wire.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings:UserWarning",
    # The Gemini SDK announces every unknown enum value.
    "ignore:.* is not a valid:UserWarning",
)

QUESTION = [HumanMessage("Where is my order?")]
Mutation: TypeAlias = Callable[[st.DataObject, list[Any]], bytes]


class Intent(BaseModel):
    name: str
    urgent: bool


@tool
def find_order(number: str) -> str:
    """Find an order by its number."""
    return number


def build_models(model: str, **values: Any) -> ChatModels:
    settings = ModelSettings(_env_file=None, model=model, model_timeout_seconds=20, **values)
    built = build_chat_models(settings, FeatureSettings(_env_file=None))
    return ChatModels(built.info, built._factory, first_pause=0, max_attempts=1, timeout=20)


@pytest.fixture(scope="module")
def openai_environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-TestKeyOfNobody")
        yield patch


@pytest.fixture(scope="module")
async def openai(openai_environment: pytest.MonkeyPatch) -> AsyncIterator[tuple[OpenAIServer, ChatModels]]:
    async with openai_server() as server:
        openai_environment.setenv("OPENAI_BASE_URL", server.url)
        models = build_models("openai:test")
        yield server, models
        await models.aclose()


@pytest.fixture(scope="module")
async def gemini() -> AsyncIterator[tuple[GeminiServer, ChatModels]]:
    async with gemini_server() as server:
        key = SecretStr("AIzaTestKeyOfNobody")
        models = build_models("google_genai:gemini-3.8-flash", google_api_key=key, google_base_url=server.url)
        yield server, models
        await models.aclose()


# Streams

TEXTS = st.sampled_from(
    ['{"name": "order"', ', "urgent": true}', "Yes.", "", "{", "null", "[1", "\u2028", "NaN"]
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FINISHES = st.sampled_from(
    [None, "stop", "length", "content_filter", "tool_calls", "STOP", "MAX_TOKENS", "SAFETY", "OTHER", "?"]
)
GARBAGE = st.sampled_from(
    [
        b"",
        b"data: \n\n",
        b"data: {\n\n",
        b"event: error\ndata: {}\n\n",
        b"<html>502</html>",
        b"\xff\xfe\n\n",
        b": ping\n\n",
        b"data: [DONE]\n\n",
        b"data: null\n\n",
        b"data: []\n\n",
        b"data: 5\n\n",
        b'data: {"error": "overloaded"}\n\n',
        b'data: {"error": {"message": "x", "code": 400, "status": 7}}\n\n',
    ]
)


def build_openai_event(text: str, finish: str | None) -> Json:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "find_order", "arguments": text}}
    return build_event(
        {"content": text} if len(text) % 2 else {"content": None, "tool_calls": [call]}, finish
    )


def build_gemini_event(text: str, finish: str | None) -> Json:
    call = {"functionCall": {"name": "find_order", "args": {"number": text}}}
    content = {"parts": [{"text": text} if len(text) % 2 else call], "role": "model"}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    candidate = {"content": content, "index": 0, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "usageMetadata": usage, "responseId": "r"}


@st.composite
def streams(draw: st.DrawFn, build: Callable[[str, str | None], Json]) -> Raw:
    """Events of which some have a value replaced, then perhaps garbage, a cut, or the wrong end."""
    body = b""
    for _ in range(draw(st.integers(0, 4))):
        event = build(draw(TEXTS), draw(FINISHES))
        if draw(st.booleans()):
            replace_anywhere(draw, event)
        body += draw(GARBAGE) if draw(st.integers(0, 5)) == 0 else b""
        body += b"data: %b\n\n" % json.dumps(event).encode()
    body += draw(GARBAGE)
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    return Raw(body, ends=draw(st.booleans()))


def replace_anywhere(draw: st.DrawFn, value: Any) -> None:
    """Put junk in the place of a value somewhere in an event, or remove it."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
            value = inner
            continue
        if draw(st.integers(0, 3)) == 0:
            del value[key]
        else:
            value[key] = draw(JUNK)
        return


async def check_every_call(server: Any, models: ChatModels, stream: Raw) -> None:
    server.enqueue(stream, stream, stream)
    try:
        reply = await models.reply(QUESTION, temperature=0, tools=[find_order])
        assert type(reply) is AIMessage
    except ModelError as error:
        assert error.status in {502, 503, 504}  # noqa: PT017 - any other exception is the failure
    try:
        structured = await models.reply_structured(QUESTION, Intent, temperature=0)
        assert (structured.value is None) == (structured.error is not None)
    except ModelError as error:
        assert error.status in {502, 503, 504}  # noqa: PT017 - any other exception is the failure
    server.clear()


@settings(max_examples=120, deadline=None, database=None)
@given(stream=streams(build_openai_event))
async def test_a_malformed_stream_of_openai_is_never_another_exception(
    openai: tuple[OpenAIServer, ChatModels], stream: Raw
) -> None:
    await check_every_call(*openai, stream)


@settings(max_examples=120, deadline=None, database=None)
@given(stream=streams(build_gemini_event))
async def test_a_malformed_stream_of_gemini_is_never_another_exception(
    gemini: tuple[GeminiServer, ChatModels], stream: Raw
) -> None:
    await check_every_call(*gemini, stream)


# Graphs

BAD_REPLIES: dict[str, Response] = {
    "prose": Text(["I would rather", " chat."]),
    "wrong": Text(['{"answer": {"a": [1]}}']),
    "echo": Text(["<customer>\nAna\n</customer>"]),
    "unfinished": Text(["Your or"], None),
}


class Always(OpenAIServer):
    """Gives the same response to every request."""

    response: Response

    def take_response(self) -> Response:
        return self.response


@pytest.fixture(scope="module")
async def running(
    shared_database_url: str, openai_environment: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Always, RunningService]]:
    async with openai_server(Always()) as server:
        openai_environment.setenv("OPENAI_BASE_URL", server.url)
        async with running_service(shared_database_url, build_models("openai:test")) as opened:
            assert isinstance(server, Always)
            yield server, opened


@pytest.mark.parametrize("kind", BAD_REPLIES)
async def test_a_bad_reply_is_an_honest_end_of_every_graph_and_of_a_message(
    running: tuple[Always, RunningService], kind: str
) -> None:
    server, service = running
    server.response = BAD_REPLIES[kind]
    for name, spec in REGISTRY.items():
        answer = await service.http.post(f"/{name}/invoke", json={"input": dict(spec.example)})
        assert answer.status_code in {200, 502, 503, 504}, (name, answer.text)
        assert_no_echo(answer.json().get("output", {}).get("messages", []))
    message = {"contact_id": "contact_ana", "message": "Why does my export fail?"}
    answer = await service.http.post("/v1/messages", json=message)
    assert answer.status_code in {200, 502, 503, 504}, answer.text
    assert "<customer>" not in answer.text


def assert_no_echo(messages: list[dict[str, Any]]) -> None:
    assert all("<customer>" not in str(message["content"]) for message in messages if message["type"] == "ai")
