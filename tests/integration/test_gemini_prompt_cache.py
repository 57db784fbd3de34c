"""Explicit prompt caching with the real Gemini adapter over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel, SecretStr

from core.context import Context, set_context
from core.errors import ModelMisconfigured
from core.models import ChatModels, build_chat_models
from core.models.prompt_cache import SECONDS, Prompt, PromptCache, _key_of
from core.settings import FeatureSettings, ModelSettings
from tests.support.gemini import (
    Error,
    FunctionCalls,
    GeminiServer,
    Structured,
    Text,
    gemini_server,
)
from tests.support.scripted import ScriptedChatModel
from tests.support.service import CONTACT, running_service
from tests.support.waiting import until

LONG = SystemMessage("Be brief. " * 500)
QUESTION = HumanMessage("Where is my order?")
ACME = Context(tenant="acme")


class Intent(BaseModel):
    name: str


@tool
def find_order(number: str) -> str:
    """Find an order by its number."""
    return number


TOOLS: list[BaseTool] = [find_order]


class Asking:
    """Models at a local Gemini, their clock, and a way to ask them."""

    def __init__(self, server: GeminiServer, models: ChatModels) -> None:
        self.server = server
        self.now = 0.0
        self.prompts = PromptCache(clock=lambda: self.now)
        self.models = ChatModels(models.info, models._factory, first_pause=0, prompts=self.prompts)

    async def reply(
        self, *messages: BaseMessage, tenant: Context | None = ACME, tools: list[BaseTool] = TOOLS
    ) -> Any:
        """Ask as a run of the tenant does, in a task of its own."""

        async def as_run() -> Any:
            if tenant:
                set_context(tenant)
            return await self.models.reply(messages or (LONG, QUESTION), temperature=0.2, tools=tools)

        self.server.enqueue(Text(["It is", " here."]))
        return await asyncio.create_task(as_run())

    async def kept(self) -> None:
        """Wait until what is on its way to the provider has arrived."""
        await until(lambda: not self.prompts._creating)

    @property
    def names(self) -> list[str]:
        """The name each request went on from."""
        return [request.cached_content for request in self.server.requests]


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with gemini_server() as server:
        settings = ModelSettings(
            _env_file=None, google_api_key=SecretStr("AIzaTestKeyOfNobody"), google_base_url=server.url
        )
        asked = Asking(server, build_chat_models(settings, FeatureSettings(_env_file=None)))
        yield asked
        await asked.models.aclose()


async def test_a_long_prefix_that_is_used_again_is_sent_once(asking: Asking) -> None:
    asking.server.cache_gate.clear()
    for _ in range(3):
        assert (await asking.reply()).text == "It is here."
    assert asking.names == ["", "", ""], "no call waits for it to be kept"
    asking.server.cache_gate.set()
    await asking.kept()
    reply = await asking.reply()
    assert reply.text == "It is here."
    assert asking.server.creations == 1
    [(name, kept)] = asking.server.cached.items()
    whole, short = asking.server.requests[0], asking.server.requests[-1]
    assert short.cached_content == name
    assert (short.system, short.functions, short.contents) == ("", {}, whole.contents)
    assert (short.temperature, short.thinking) == (whole.temperature, whole.thinking)
    assert (kept.system, kept.functions, kept.model) == (whole.system, whole.functions, whole.model)
    assert kept.body["ttl"] == "300s"
    assert "contents" not in kept.body


async def test_a_model_calls_the_tools_of_a_cached_prefix(asking: Asking) -> None:
    for _ in range(2):
        await asking.reply()
    await asking.kept()
    asking.server.enqueue(FunctionCalls([("find_order", {"number": "7"})]))
    set_context(ACME)
    reply = await asking.models.reply([LONG, QUESTION], temperature=0, tools=TOOLS)
    assert asking.names[-1]
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("find_order", {"number": "7"})]


async def test_structured_replies_use_the_cached_prefix(asking: Asking) -> None:
    set_context(ACME)
    for _ in range(3):
        asking.server.enqueue(Structured(Intent(name="order")))
        value = await asking.models.reply_structured([LONG, QUESTION], Intent, temperature=0)
        assert value.value == Intent(name="order")
        await asking.kept()
    assert [bool(name) for name in asking.names] == [False, False, True]
    assert asking.server.requests[-1].config["responseMimeType"] == "application/json"


async def test_a_cached_prefix_is_not_shared_between_tenants(asking: Asking) -> None:
    for tenant in (ACME, ACME, Context(tenant="globex")):
        await asking.reply(tenant=tenant)
        await asking.kept()
    await asking.reply(tenant=Context(tenant="globex"))
    await asking.kept()
    await asking.reply(tenant=Context(tenant="globex"))
    await asking.reply(tenant=ACME)
    assert asking.names == ["", "", "", "", "cachedContents/c2", "cachedContents/c1"]


@pytest.mark.parametrize(
    ("system", "tenant"), [(SystemMessage("Be brief."), ACME), (LONG, None)], ids=["short", "nobody's"]
)
async def test_a_prefix_that_is_short_or_outside_of_runs_is_not_cached(
    asking: Asking, system: BaseMessage, tenant: Context | None
) -> None:
    for _ in range(3):
        await asking.reply(system, QUESTION, tenant=tenant)
    assert asking.server.creations == 0


@pytest.mark.parametrize(
    ("messages", "model"),
    [
        ([LONG], "google_genai:any"),
        ([QUESTION, LONG], "google_genai:any"),
        ([LONG, QUESTION, LONG], "google_genai:any"),
        ([LONG, QUESTION], "openai:any"),
    ],
)
async def test_a_prompt_that_gemini_cannot_cache_is_unchanged(
    messages: list[BaseMessage], model: str
) -> None:
    set_context(ACME)
    chat = ScriptedChatModel()
    assert _key_of(Prompt(chat=chat, messages=[LONG, QUESTION]), "google_genai:any")
    assert not _key_of(Prompt(chat=chat, messages=messages), model)


async def test_a_cached_prefix_is_not_used_after_it_expired(asking: Asking) -> None:
    for _ in range(2):
        await asking.reply()
    await asking.kept()
    asking.now = SECONDS - 1
    await asking.reply()
    await asking.kept()
    await asking.reply()
    assert asking.names == ["", "", "", "cachedContents/c2"]


async def test_a_prefix_that_is_used_again_too_late_is_not_cached(asking: Asking) -> None:
    for _ in range(3):
        await asking.reply()
        asking.now += SECONDS
    assert asking.server.creations == 0


@pytest.mark.parametrize(
    "error",
    [Error(400, "INVALID_ARGUMENT", "Cached content is too small."), Error.overloaded(), Error.forbidden()],
)
async def test_a_provider_that_refuses_to_cache_is_not_asked_again(asking: Asking, error: Error) -> None:
    asking.server.cache_error = error
    for _ in range(4):
        assert (await asking.reply()).text == "It is here."
        await asking.kept()
    assert asking.server.creations == 1
    assert asking.names == [""] * 4


async def test_a_name_that_the_provider_deleted_costs_one_more_request(asking: Asking) -> None:
    for _ in range(2):
        await asking.reply()
    await asking.kept()
    asking.server.cached.clear()
    assert (await asking.reply()).text == "It is here."
    assert (await asking.reply()).text == "It is here."
    assert asking.names == ["", "", "cachedContents/c1", "", ""]


async def test_an_invalid_call_with_a_cached_prefix_is_still_an_error(asking: Asking) -> None:
    for _ in range(2):
        await asking.reply()
    await asking.kept()
    asking.server.enqueue(Error.invalid_key(), Error.invalid_key())
    set_context(ACME)
    with pytest.raises(ModelMisconfigured):
        await asking.models.reply([LONG, QUESTION], temperature=0, tools=TOOLS)


async def test_the_number_of_cached_prefixes_is_bounded(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.prompt_cache._MOST_PROMPTS", 2)
    for number in range(4):
        await asking.reply(SystemMessage(f"{number}{LONG.text}"), QUESTION)
    assert len(asking.prompts._entries) == 2


async def test_prompt_caching_can_be_turned_off() -> None:
    settings = ModelSettings(_env_file=None, google_api_key=SecretStr("AIzaTestKeyOfNobody"))
    built = build_chat_models(settings, FeatureSettings(_env_file=None, prompt_caching=False))
    assert built._prompts is None
    assert build_chat_models(settings, FeatureSettings(_env_file=None))._prompts is not None


async def test_runs_of_the_service_share_cached_prefixes(asking: Asking, database_url: str) -> None:
    """A second customer's run goes on from the instructions that the first one's had kept."""
    async with running_service(database_url, asking.models) as running:
        for _ in range(3):
            asking.server.enqueue(Text(["It works again."]))
            answer = await running.react.ainvoke({"task": "Is it up?", "contact_id": CONTACT})
            assert answer["final_answer"] == "It works again."
            await asking.kept()
    assert asking.names == ["", "", "cachedContents/c1"]
    assert "get_contact" in asking.server.cached["cachedContents/c1"].functions
