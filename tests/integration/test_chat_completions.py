"""What a client of OpenAI's API notices, with OpenAI's own client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage
from openai import AsyncOpenAI

from tests.integration.test_react_over_http import MORE
from tests.support.general_agent import remembered, replying, service, shown
from tests.support.identity import WITH_KEYS, key_of
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service

HELLO: Any = [{"role": "user", "content": "Do you sell parrots?"}]
OPEN_WEBUI = {"X-OpenWebUI-Chat-Id": "7"}


@asynccontextmanager
async def client_of(running: RunningService, key: str = "none", **headers: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key=key, max_retries=0, default_headers=headers
    ) as client:
        yield client


async def test_each_agent_is_a_model(database_url: str) -> None:
    async with service(database_url, ScriptedChatModel()) as running, client_of(running) as client:
        names = [model.id async for model in client.models.list()]
        assert names[0] == "coordinator"
        assert set(names[1:]) == set(running.service.agents.specs)
        assert (await client.models.retrieve("general")).owned_by == "ventros-agents"


async def test_a_completion_is_answered_whole_and_as_a_stream(database_url: str) -> None:
    reply = AIMessage(
        "We sell green ones.",
        usage_metadata={"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    )
    model = ScriptedChatModel(replies=[reply, reply])
    async with service(database_url, model) as running, client_of(running) as client:
        whole = await client.chat.completions.create(model="general", messages=HELLO, temperature=0.3)
        assert whole.choices[0].message.content == "We sell green ones."
        assert (whole.model, whole.choices[0].finish_reason) == ("general", "stop")
        assert whole.usage
        assert whole.usage.total_tokens == 12
        stream = await client.chat.completions.create(
            model="coordinator", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(texts) == "We sell green ones."
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage
        assert chunks[-1].usage.total_tokens == 12


async def test_a_stream_holds_the_answer_and_no_thoughts(database_url: str) -> None:
    lookup = calling("Private: I look it up.", ("search_knowledge_base", {"query": "error 500 export"}))
    model = ScriptedChatModel(replies=[lookup, MORE, AIMessage("Use batches.")])
    async with running_service(database_url, scripted_models(model)) as running, client_of(running) as client:
        asked: Any = [{"role": "user", "content": "My export fails with error 500."}]
        stream = await client.chat.completions.create(
            model="technical_support", messages=asked, stream=True, extra_headers={"X-Contact-Id": CONTACT}
        )
        text = "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])
        assert "Use batches." in text
        assert "Private" not in text


async def test_an_earlier_conversation_is_read_and_no_customers_memory_touched(database_url: str) -> None:
    model = replying("Ana, you said.", "Ana, as I said.", "Nobody told me.")
    conversation: Any = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "My name is Ana."},
        {"role": "assistant", "content": "Hello Ana."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    async with service(database_url, model) as running, client_of(running, **OPEN_WEBUI) as client:
        await client.chat.completions.create(model="general", messages=conversation, user=CONTACT)
        prompt = shown(model)
        assert "My name is Ana." in prompt
        assert "Hello Ana." in prompt
        assert "pirate" not in prompt
        assert await remembered(running) == []
        # The same conversation is the same session, which holds it already.
        longer = [*conversation, {"role": "assistant", "content": "Ana, you said."}, HELLO[0]]
        await client.chat.completions.create(model="general", messages=longer)
        assert shown(model).count("Hello Ana.") == 1
        # One without an id is a new one, although it begins with the same words.
        async with client_of(running) as other:
            await other.chat.completions.create(model="general", messages=HELLO)
        assert "Ana" not in shown(model)
        sessions = await running.http.get("/v1/sessions", params={"contact_id": CONTACT})
        assert sessions.json()["sessions"] == []


async def test_a_named_contact_is_the_crms_and_its_session_nobody_elses(database_url: str) -> None:
    async with service(database_url, replying("Hello.")) as running, client_of(running) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="general", messages=HELLO, extra_headers={"X-Contact-Id": CONTACT}
        )
        assert ("agent", "Hello.") in await remembered(running)
        session = {"X-Session-Id": raw.headers["X-Thread-Id"]}
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="general", messages=HELLO, extra_headers=session)
        assert refused.value.code == "session_refused"


async def test_errors_have_the_form_that_the_client_knows(database_url: str) -> None:
    async with service(database_url, ScriptedChatModel(), auth=WITH_KEYS) as running:
        async with client_of(running, "va_wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        key = (await key_of(running.service, "acme", "runs"))["Authorization"].removeprefix("Bearer ")
        async with client_of(running, key) as client:
            with pytest.raises(openai.NotFoundError) as unknown:
                await client.chat.completions.create(model="gpt-5", messages=HELLO)
            assert (unknown.value.code, unknown.value.type) == ("not_found", "not_found_error")
            tool: Any = {"type": "function", "function": {"name": "fly"}}
            for wrong, field in (
                ({"tools": [tool]}, "tools"),
                ({"n": 2}, "n"),
                ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
                ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
            ):
                values: Any = {"model": "general", "messages": HELLO, **wrong}
                with pytest.raises(openai.UnprocessableEntityError) as refused:
                    await client.chat.completions.create(**values)
                assert refused.value.type == "invalid_request_error"
                assert field in refused.value.message
