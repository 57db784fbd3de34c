"""Which model answers, how a call is retried, and what a caller gets when it fails for good."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import httpx
import pytest
from google.auth import exceptions as google
from langchain_core import exceptions as langchain
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import override

from core.deadline import within
from core.errors import ModelMisconfigured, ModelRefused, ModelUnavailable, StartupError
from core.models import DEFAULT_MODEL, ChatModels, ModelInfo, ModelSpec, build_chat_models, providers
from core.models.usage import Quota
from core.settings import FeatureSettings, ModelSettings
from tests.support.vertex import ServiceAccount

KEY = SecretStr("test-key")
QUESTION = [HumanMessage("Where is my order?")]
PRIMARY, REASONING, FALLBACK = "test:primary", "test:reasoning", "test:fallback"
INFO = ModelInfo(
    model=PRIMARY, reasoning_model=REASONING, fallback_model=None, is_language_model=True, why="a test"
)
WITH_FALLBACK = ModelInfo(
    model=PRIMARY, reasoning_model=REASONING, fallback_model=FALLBACK, is_language_model=True, why="a test"
)

Script: TypeAlias = list[AIMessageChunk | Exception]


class Intent(BaseModel):
    name: str
    confidence: float = Field(ge=0, le=1)


class ScriptedModel(BaseChatModel):
    """Plays a script: each entry answers one call with chunks, or fails it, the last one over and over."""

    script: list[Any]  # of Script: pydantic would make messages of the errors
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise AssertionError("replies are streamed")

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        entry = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        for each in entry:
            if isinstance(each, Exception):
                raise each
            yield ChatGenerationChunk(message=each.model_copy())

    @override
    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=list(tools))


def says(*pieces: str, **metadata: str) -> Script:
    chunks: Script = [AIMessageChunk(content=piece) for piece in pieces]
    return [*chunks, AIMessageChunk(content="", response_metadata=metadata)]


def fails(error: Exception) -> Script:
    return [error]


def calls_tool(name: str, arguments: str) -> Script:
    call = {"name": name, "args": arguments, "id": "call-1", "index": 0, "type": "tool_call_chunk"}
    return [AIMessageChunk(content="", tool_call_chunks=[call])]


def scripted(*script: Script) -> ScriptedModel:
    return ScriptedModel(script=list(script))


def models_of(
    models: Mapping[str, BaseChatModel] | BaseChatModel, info: ModelInfo = INFO, **options: Any
) -> ChatModels:
    def factory(spec: ModelSpec) -> BaseChatModel:
        return models if isinstance(models, BaseChatModel) else models[spec.name]

    return ChatModels(info, factory, **{"first_pause": 0, **options})


def settings(**values: Any) -> ModelSettings:
    return ModelSettings(_env_file=None, **values)


def features(**values: Any) -> FeatureSettings:
    return FeatureSettings(_env_file=None, **values)


# Which model answers, and why


def test_without_a_key_or_a_model_the_offline_model_answers_and_says_what_it_is() -> None:
    info = build_chat_models(settings(), features()).info
    assert info.model == info.reasoning_model == "offline"
    assert not info.is_language_model
    assert info.why == (
        "no GOOGLE_API_KEY, GOOGLE_CLOUD_PROJECT or MODEL: the offline model answers; it is not a language "
        "model"
    )


def test_a_google_key_alone_is_enough_for_gemini() -> None:
    info = build_chat_models(settings(google_api_key=KEY), features()).info
    assert info.model == info.reasoning_model == DEFAULT_MODEL == "google_genai:gemini-3.8-flash"
    assert info.fallback_model is None
    assert info.is_language_model
    assert info.why == "GOOGLE_API_KEY is set"


def test_a_project_and_a_service_account_are_enough_for_vertex_ai(tmp_path: Path) -> None:
    file = ServiceAccount().write_key_file(tmp_path, "http://127.0.0.1:1")
    chosen = settings(google_cloud_project="acme-crm", google_application_credentials=file)
    info = build_chat_models(chosen, features()).info
    assert (info.model, info.why) == ("google_vertexai:gemini-3.8-flash", "GOOGLE_CLOUD_PROJECT is set")
    assert info.is_language_model


def test_a_project_that_the_platform_set_does_not_replace_the_key() -> None:
    chosen = settings(google_api_key=KEY, google_cloud_project="acme-crm")
    assert build_chat_models(chosen, features()).info.model == DEFAULT_MODEL


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not the JSON key file of a service account"),
        ('{"type": "authorized_user", "client_secret": "hunter2"}', "is not the JSON key file"),
    ],
)
def test_a_key_file_that_cannot_be_used_stops_the_start_without_its_content(
    content: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "google.json"
    if content is not None:
        file.write_text(content)
    chosen = settings(google_cloud_project="acme-crm", google_application_credentials=file)
    with pytest.raises(
        StartupError, match=rf"GOOGLE_APPLICATION_CREDENTIALS .*google.json' {words}"
    ) as caught:
        build_chat_models(chosen, features())
    assert "hunter2" not in caught.value.message


def test_model_takes_precedence_over_the_key() -> None:
    info = build_chat_models(
        settings(google_api_key=KEY, model="google_genai:gemini-2.5-pro"), features()
    ).info
    assert (info.model, info.why) == ("google_genai:gemini-2.5-pro", "MODEL is set")


def test_the_offline_model_can_be_chosen_although_there_is_a_key() -> None:
    info = build_chat_models(settings(google_api_key=KEY, model="offline"), features()).info
    assert info.model == "offline"
    assert info.why.startswith("MODEL is set: the offline model answers")


def test_the_reasoning_model_can_differ() -> None:
    chosen = settings(google_api_key=KEY, reasoning_model="google_genai:gemini-3.1-pro-preview")
    info = build_chat_models(chosen, features()).info
    assert (info.model, info.reasoning_model) == (DEFAULT_MODEL, "google_genai:gemini-3.1-pro-preview")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "google_genai:gemini-3.8-flash"}, "needs GOOGLE_API_KEY"),
        ({"model": "google_vertexai:gemini-3.8-flash"}, "needs GOOGLE_CLOUD_PROJECT"),
        ({"google_cloud_project": "acme-crm"}, "needs GOOGLE_APPLICATION_CREDENTIALS, the path of"),
        ({"model": "mistralai:mistral-large"}, "pip install langchain-mistralai"),
        ({"model": "nobody:knows"}, "Unsupported provider='nobody'"),
        ({"fallback_model": "mistralai:mistral-large-latest"}, "pip install langchain-mistralai"),
        ({"reasoning_model": "google_genai:gemini-3.8-flash"}, "needs GOOGLE_API_KEY"),
    ],
)
def test_a_model_that_cannot_be_built_stops_the_start_with_what_to_do(
    values: dict[str, str], words: str
) -> None:
    with pytest.raises(StartupError, match=words):
        build_chat_models(settings(**values), features())


def test_a_missing_key_of_another_provider_is_one_line_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class OpenAIError(Exception):
        pass

    sdk = ModuleType("openai")
    vars(sdk)["OpenAIError"] = OpenAIError

    def init(*_: Any, **__: Any) -> BaseChatModel:
        raise OpenAIError("The api_key client option must be set\nby OPENAI_API_KEY")

    monkeypatch.setitem(sys.modules, "openai", sdk)
    monkeypatch.setattr(providers, "init_chat_model", init)
    with pytest.raises(StartupError) as caught:
        build_chat_models(settings(model="openai:gpt-5.5"), features())
    assert caught.value.message == (
        "the model 'openai:gpt-5.5' cannot be built: The api_key client option must be set by OPENAI_API_KEY"
    )


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("openai:gpt-5.5", {"timeout": 12.0, "max_retries": 0, "max_tokens": 900}),
        ("ollama:qwen3", {"num_predict": 900}),
    ],
)
def test_another_provider_gets_our_limits_and_does_not_retry_on_its_own(
    name: str, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def init(model: str, *, model_provider: str, **options: Any) -> BaseChatModel:
        assert f"{model_provider}:{model}" == name
        given.append(options)
        return scripted(says("hello"))

    monkeypatch.setattr(providers, "init_chat_model", init)
    build_chat_models(settings(model=name, model_timeout_seconds=12, model_max_output_tokens=900), features())
    assert given == [{"temperature": 0, **limits}]


# Roles, specs and the cache


async def test_each_role_calls_its_model_and_only_reasoning_thinks() -> None:
    built: list[ModelSpec] = []

    def factory(spec: ModelSpec) -> BaseChatModel:
        built.append(spec)
        return scripted(says("yes"))

    models = ChatModels(INFO, factory)
    for role in ("chat", "reasoning", "chat", "reading"):
        await models.reply(QUESTION, temperature=0.5, role=role)
    await models.reply(QUESTION, temperature=0.9)
    await models.reply(QUESTION, temperature=0.5, model="test:other")
    assert built == [
        ModelSpec(name=PRIMARY, temperature=0.5, thinking=False, max_output_tokens=4_096),
        ModelSpec(name=REASONING, temperature=0.5, thinking=True, max_output_tokens=None),
        ModelSpec(name=PRIMARY, temperature=0.5, thinking=False, max_output_tokens=2_048),
        ModelSpec(name=PRIMARY, temperature=0.9, thinking=False, max_output_tokens=4_096),
        ModelSpec(name="test:other", temperature=0.5, thinking=False, max_output_tokens=4_096),
    ]


async def test_thinking_can_be_switched_off() -> None:
    built: list[ModelSpec] = []

    def factory(spec: ModelSpec) -> BaseChatModel:
        built.append(spec)
        return scripted(says("yes"))

    await ChatModels(INFO, factory, thinking=False).reply(QUESTION, temperature=0, role="reasoning")
    assert [spec.thinking for spec in built] == [False]


async def test_concurrent_first_calls_build_one_client() -> None:
    built: list[ModelSpec] = []

    def factory(spec: ModelSpec) -> BaseChatModel:
        built.append(spec)
        return scripted(says("yes"))

    models = ChatModels(INFO, factory)
    await asyncio.gather(*(models.reply(QUESTION, temperature=0) for _ in range(8)))
    assert len(built) == 1


async def test_the_number_of_models_that_callers_name_is_bounded() -> None:
    models = models_of(scripted(says("yes")))
    for number in range(100):
        await models.reply(QUESTION, temperature=0, model=f"test:{number}")
    assert len(models._built) == 64


async def test_a_model_that_a_caller_names_and_cannot_be_built_is_an_error() -> None:
    models = build_chat_models(settings(), features())
    with pytest.raises(ModelMisconfigured, match="needs GOOGLE_API_KEY") as caught:
        await models.reply(QUESTION, temperature=0, model=DEFAULT_MODEL)
    assert caught.value.details["model"] == DEFAULT_MODEL
    with pytest.raises(ModelMisconfigured, match="is not provider:model"):
        await models.reply(QUESTION, temperature=0, model="gemini-3.8-flash")


# Retries and the fallback


def _http_error(status: int, headers: Mapping[str, str] | None = None) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://provider.invalid")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("refused", request=request, response=response)


class TransportOfAnotherLibrary(Exception):
    """Stands for aiohttp's errors, which are known by name."""


TransportOfAnotherLibrary.__module__ = "aiohttp.client_exceptions"
TransportOfAnotherLibrary.__qualname__ = "ClientError"


def _token_error(name: str, *arguments: Any, **options: Any) -> Exception:
    """Return what is raised where Google gives a service account no token; the classes are untyped."""
    error: Exception = getattr(google, name)(*arguments, **options)
    return error


TRANSIENT: list[Exception] = [
    langchain.ModelRateLimitError("slow down"),
    langchain.ModelAPIError("broken"),
    langchain.ModelConnectionError("nobody there"),
    langchain.ModelTimeoutError("late"),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("late"),
    httpx.RemoteProtocolError("peer closed connection"),
    ConnectionResetError(),
    TimeoutError(),
    _http_error(503),
    _http_error(429),
    TransportOfAnotherLibrary("disconnected"),
    _token_error("TransportError", "no token could be fetched"),
    _token_error("RefreshError", "internal_failure", {}, retryable=True),
]
FINAL: list[Exception] = [
    langchain.ModelAuthenticationError("who are you"),
    langchain.ModelPermissionDeniedError("not you"),
    langchain.ModelInvalidRequestError("what"),
    langchain.ModelNotFoundError("where"),
    langchain.ContextOverflowError("too long"),
    _http_error(401),
    _http_error(422),
    _token_error("RefreshError", "invalid_grant: Account not found", {}, retryable=False),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
async def test_a_transient_error_is_retried(error: Exception) -> None:
    chat = scripted(fails(error), says("hello"))
    reply = await models_of(chat).reply(QUESTION, temperature=0)
    assert (reply.text, chat.calls) == ("hello", 2)


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
async def test_a_lasting_error_ends_after_bounded_attempts(error: Exception) -> None:
    chat = scripted(fails(error))
    with pytest.raises(ModelUnavailable) as caught:
        await models_of(chat, max_attempts=4).reply(QUESTION, temperature=0)
    assert chat.calls == 4
    assert caught.value.details.keys() == {"model", "attempts", "reason"}
    assert (caught.value.details["model"], caught.value.details["attempts"]) == (PRIMARY, 4)
    assert caught.value.retry_after is not None


@pytest.mark.parametrize("error", FINAL, ids=repr)
async def test_an_error_that_no_retry_can_fix_is_reported_at_once(error: Exception) -> None:
    primary, fallback = scripted(fails(error)), scripted(says("hello"))
    models = models_of({PRIMARY: primary, FALLBACK: fallback}, WITH_FALLBACK)
    with pytest.raises(ModelMisconfigured) as caught:
        await models.reply(QUESTION, temperature=0)
    assert (primary.calls, fallback.calls) == (1, 0)
    assert caught.value.details["model"] == PRIMARY


async def test_a_model_that_stays_unavailable_is_not_called_for_a_while_and_the_fallback_answers() -> None:
    primary, fallback = scripted(fails(httpx.ConnectError("refused"))), scripted(says("hello"))
    models = models_of({PRIMARY: primary, FALLBACK: fallback}, WITH_FALLBACK, max_attempts=2)
    for _ in range(5):
        assert (await models.reply(QUESTION, temperature=0)).text == "hello"
    assert (primary.calls, fallback.calls) == (3 * 2, 5)
    assert models.circuits == {PRIMARY: "open", FALLBACK: "closed"}


async def test_a_refused_call_says_at_once_when_to_try_again() -> None:
    chat = scripted(fails(_http_error(503)))
    models = models_of(chat, max_attempts=1, rest_seconds=60)
    for _ in range(4):
        with pytest.raises(ModelUnavailable) as caught:
            await models.reply(QUESTION, temperature=0)
    assert chat.calls == 3
    assert caught.value.details["attempts"] == 0
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60


async def test_after_its_rest_one_attempt_decides_whether_a_model_is_called_again() -> None:
    error = httpx.ConnectError("refused")
    chat = scripted(*[fails(error)] * 7, says("hello"))
    # Over before the next call.
    models = models_of(chat, max_attempts=2, rest_seconds=1e-9)
    for _ in range(4):
        with pytest.raises(ModelUnavailable):
            await models.reply(QUESTION, temperature=0)
    assert chat.calls == 3 * 2 + 1
    assert (await models.reply(QUESTION, temperature=0)).text == "hello"
    assert models.circuits == {PRIMARY: "closed"}


@pytest.mark.parametrize("error", [_http_error(429), langchain.ModelRateLimitError("slow down")], ids=repr)
async def test_a_model_that_asks_to_slow_down_is_called_again(error: Exception) -> None:
    chat = scripted(fails(error))
    models = models_of(chat, max_attempts=1)
    for _ in range(5):
        with pytest.raises(ModelUnavailable):
            await models.reply(QUESTION, temperature=0)
    assert chat.calls == 5


async def test_nobody_waits_for_a_model_that_asks_for_more_time_than_is_left() -> None:
    primary = scripted(fails(_http_error(429, {"Retry-After": "86400"})))
    models = models_of({PRIMARY: primary, FALLBACK: scripted(says("hello"))}, WITH_FALLBACK)
    with within(20):
        assert (await models.reply(QUESTION, temperature=0)).text == "hello"
    assert primary.calls == 1


async def test_without_time_no_model_is_called_and_none_counts_as_unavailable() -> None:
    chat = scripted(says("hello"))
    models = models_of(chat)
    for _ in range(5):
        with within(0), pytest.raises(ModelUnavailable, match="no time is left"):
            await models.reply(QUESTION, temperature=0)
    assert (chat.calls, models.circuits) == (0, {PRIMARY: "closed"})


async def test_a_wait_for_the_quota_ends_with_the_time_that_is_left() -> None:
    chat = scripted(says("hello"))
    models = models_of(chat, quota=lambda: Quota(requests_per_minute=0.001))
    await models.reply(QUESTION, temperature=0)
    with within(0.01), pytest.raises(ModelUnavailable, match="quota"):
        await models.reply(QUESTION, temperature=0)
    assert chat.calls == 1


async def test_a_bug_of_ours_is_not_reported_as_the_providers_error() -> None:
    chat = scripted(fails(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        await models_of(chat).reply(QUESTION, temperature=0)
    assert chat.calls == 1


@pytest.mark.parametrize(
    "error", [KeyError("choices"), TypeError("no str"), IndexError(), AssertionError(), ValueError("no JSON")]
)
async def test_a_stream_that_the_adapter_cannot_read_is_requested_again(error: Exception) -> None:
    chat = scripted([AIMessageChunk(content="Your or"), error], says("hello"))
    reply = await models_of(chat).reply(QUESTION, temperature=0)
    assert (reply.text, chat.calls) == ("hello", 2)


async def test_an_interrupted_stream_is_requested_again_from_the_start() -> None:
    chat = scripted(
        [AIMessageChunk(content="Your or"), httpx.ReadError("gone")], says("Your order", " left.")
    )
    reply = await models_of(chat).reply(QUESTION, temperature=0)
    assert (reply.text, chat.calls) == ("Your order left.", 2)


async def test_the_fallback_answers_if_the_model_stays_unavailable() -> None:
    primary, fallback = scripted(fails(TimeoutError())), scripted(says("hello"))
    models = models_of({PRIMARY: primary, FALLBACK: fallback}, WITH_FALLBACK)
    assert (await models.reply(QUESTION, temperature=0)).text == "hello"
    assert (primary.calls, fallback.calls) == (3, 1)


async def test_if_the_fallback_is_unavailable_too_the_error_names_both() -> None:
    primary, fallback = scripted(fails(_http_error(503))), scripted(fails(TimeoutError()))
    models = models_of({PRIMARY: primary, FALLBACK: fallback}, WITH_FALLBACK)
    with pytest.raises(ModelUnavailable) as caught:
        await models.reply(QUESTION, temperature=0)
    assert (primary.calls, fallback.calls) == (3, 3)
    assert caught.value.details == {
        "model": PRIMARY,
        "attempts": 6,
        "reason": "503",
        "fallback": {"model": FALLBACK, "reason": "no answer in time"},
    }


async def test_a_fallback_that_is_the_model_itself_is_not_called_twice() -> None:
    chat = scripted(fails(TimeoutError()))
    with pytest.raises(ModelUnavailable):
        await models_of(chat, WITH_FALLBACK).reply(QUESTION, temperature=0, model=FALLBACK)
    assert chat.calls == 3


async def test_pauses_grow_and_follow_the_provider_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    hasty = _http_error(429)
    hasty.response.headers["Retry-After"] = "3600"
    chat = scripted(fails(TimeoutError()), fails(TimeoutError()), fails(hasty), says("hello"))
    models = models_of(chat, max_attempts=4, first_pause=1.0)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", record)
        await models.reply(QUESTION, temperature=0)
    first, second, third = pauses
    assert 1 <= first <= 2
    assert 2 <= second <= 3
    assert third == 20


class HangingModel(ScriptedModel):
    """Says one word and then nothing, without end."""

    @override
    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        self.calls += 1
        yield ChatGenerationChunk(message=AIMessageChunk(content="Well"))
        await asyncio.Event().wait()


async def test_a_reply_that_never_ends_times_out() -> None:
    chat = HangingModel(script=[])
    with pytest.raises(ModelUnavailable) as caught:
        await models_of(chat, timeout=0.01, max_attempts=2).reply(QUESTION, temperature=0)
    assert chat.calls == 2
    assert caught.value.details["reason"] == "no answer in time"


async def test_cancelling_a_call_ends_it_at_once() -> None:
    chat = HangingModel(script=[])
    call = asyncio.create_task(models_of(chat).reply(QUESTION, temperature=0))
    while chat.calls == 0:  # noqa: ASYNC110 - the model has no event to wait for
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert chat.calls == 1


async def test_a_key_in_a_providers_message_is_removed() -> None:
    chat = scripted(fails(langchain.ModelAuthenticationError("Incorrect API key provided: sk-abcd1234.")))
    with pytest.raises(ModelMisconfigured) as caught:
        await models_of(chat).reply(QUESTION, temperature=0)
    assert "abcd1234" not in caught.value.message
    assert "check the provider's API key" in caught.value.message


@pytest.mark.parametrize("reason", ["content_filter", "refusal"])
async def test_a_refusal_of_another_provider_is_a_refusal(reason: str) -> None:
    chat = scripted(says("", finish_reason=reason))
    with pytest.raises(ModelRefused):
        await models_of(chat).reply(QUESTION, temperature=0)
    assert chat.calls == 1


# Streaming


@pytest.mark.parametrize("chunk_id", [None, "provider-1"])
async def test_tokens_reach_the_graphs_stream_with_the_replys_id(chunk_id: str | None) -> None:
    pieces: Script = [AIMessageChunk(content=text, id=chunk_id) for text in ("Hel", "lo")]
    models = models_of(scripted(pieces))

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await models.reply(state["messages"], temperature=0)]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    start: MessagesState = {"messages": [HumanMessage("hi")]}
    streamed: list[BaseMessage] = []
    final: dict[str, Any] = {}
    async for mode, part in graph.astream(start, stream_mode=["messages", "values"]):
        if mode == "messages":
            assert isinstance(part, tuple)
            streamed.append(part[0])
        else:
            assert isinstance(part, dict)
            final = part
    reply = final["messages"][-1]
    assert type(reply) is AIMessage
    texts = [message for message in streamed if message.text]
    assert [message.text for message in texts] == ["Hel", "lo"]
    assert {message.id for message in texts} == {reply.id}


async def test_a_repeated_finish_reason_is_not_concatenated() -> None:
    chunks: Script = [
        AIMessageChunk(content=text, response_metadata={"finish_reason": "STOP"}) for text in ("a", "b")
    ]
    reply = await models_of(scripted(chunks)).reply(QUESTION, temperature=0)
    assert reply.response_metadata["finish_reason"] == "STOP"


# Structured replies


async def test_a_value_comes_back_typed() -> None:
    chat = scripted(calls_tool("Intent", '{"name": "order", "confidence": 0.8}'))
    reply = await models_of({REASONING: chat}).reply_structured(QUESTION, Intent, temperature=0)
    assert reply.value == Intent(name="order", confidence=0.8)
    assert reply.error is None
    assert reply.raw.id


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (calls_tool("Intent", '{"name": "order", "confidence": 7}'), "confidence: Input should be less than"),
        (calls_tool("Intent", '{"name": "order"}'), "confidence: Field required"),
        (says(""), "empty"),
        (says("I would rather chat."), "not valid JSON"),
    ],
)
async def test_a_value_that_does_not_fit_the_schema_is_explained(answer: Script, words: str) -> None:
    chat = scripted(answer)
    reply = await models_of({REASONING: chat}).reply_structured(QUESTION, Intent, temperature=0)
    assert reply.value is None
    assert words in (reply.error or "")
    assert chat.calls == 1


async def test_a_models_own_structured_output_is_used() -> None:
    raw = AIMessage('{"name": "order", "confidence": 1}', id="raw-1")

    class Own(ScriptedModel):
        @override
        def with_structured_output(
            self, schema: Any, *, include_raw: bool = False, **kwargs: Any
        ) -> Runnable[LanguageModelInput, Any]:
            assert include_raw
            answer: Callable[[Any], dict[str, Any]] = lambda _: {  # noqa: E731
                "raw": raw,
                "parsed": Intent(name="order", confidence=1),
                "parsing_error": None,
            }
            return RunnableLambda(answer)

    reply = await models_of(Own(script=[])).reply_structured(QUESTION, Intent, temperature=0)
    assert (reply.value, reply.raw) == (Intent(name="order", confidence=1), raw)


async def test_the_offline_model_answers_through_the_same_interface() -> None:
    models = build_chat_models(settings(), features())
    reply = await models.reply(QUESTION, temperature=0)
    assert type(reply) is AIMessage
    assert reply.id
