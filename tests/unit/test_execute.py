"""What the model, and the run, learn from a tool call, however it ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException, tool
from pydantic import BaseModel, SecretStr

from core.errors import CrmError, CrmUnauthorized, CrmUnavailable
from core.postgres import Pool
from dev_crm.app import create_crm
from tests.support.crm_faults import (
    KEY,
    LAURA,
    NOBODY,
    Answer,
    LosesFirstAnswer,
    closed_port,
    crm_client,
    scripted_crm,
    served,
)
from tools import execution as execute_module
from tools.catalogue import crm_tools
from tools.execution import (
    MAX_MESSAGE_CHARACTERS,
    MAX_RESULT_CHARACTERS,
    CallContext,
    derive_idempotency_key,
    execute,
)

CONTEXT = CallContext(contact_id=LAURA, idempotency_key="key-1")
SEND = "send_solution_to_customer"
TICKET = {"title": "Export fails", "description": "Over 40K.", "severity": "high"}


class Plan(BaseModel):
    """A result that is no plain JSON."""

    name: str


def call(name: str, id_: str | None = "call-1", /, **args: Any) -> ToolCall:
    return ToolCall(name=name, args=args, id=id_, type="tool_call")


def toolbox(*tools: BaseTool) -> Mapping[str, BaseTool]:
    return {each.name: each for each in tools}


def returning(result: Any) -> BaseTool:
    @tool
    async def give() -> Any:
        """Give."""
        return result

    return give


def raising(error: BaseException) -> BaseTool:
    @tool
    async def fail() -> None:
        """Fail."""
        raise error

    return fail


@pytest.fixture
def development_crm(pool: Pool) -> FastAPI:
    return create_crm(pool, SecretStr(KEY))


@pytest.fixture
async def tools(development_crm: FastAPI) -> AsyncIterator[Mapping[str, BaseTool]]:
    async with crm_client(transport=httpx.ASGITransport(development_crm)) as crm:
        yield crm_tools(crm)


async def messages_of_agents(pool: Pool) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT contact_id::text, text FROM crm.messages WHERE source = 'ventros-agents'"
        )
        return await cursor.fetchall()


def failure(message: ToolMessage) -> tuple[str, str]:
    """Kind and words; a failure looks the same to the model, the run and the chat client."""
    assert message.status == "error"
    assert message.artifact == json.loads(str(message.content))
    assert message.artifact["success"] is False
    assert set(message.artifact) == {"success", "error"}
    return message.artifact["error"]["kind"], message.artifact["error"]["message"]


def result(message: ToolMessage) -> Any:
    """The result; it looks the same to the model, the run and the chat client."""
    assert message.status == "success", message.content
    assert message.artifact == json.loads(str(message.content))
    assert message.artifact["success"] is True
    assert set(message.artifact) == {"success", "result"}
    return message.artifact["result"]


# Calls that work


async def test_a_result_answers_its_call(tools: Mapping[str, BaseTool]) -> None:
    message = await execute(tools, call("get_product_version", "call-7"), CONTEXT)
    assert (message.tool_call_id, message.name) == ("call-7", "get_product_version")
    assert result(message)["product_version"] == "2.3.1"


async def test_a_call_without_an_id_is_answered(tools: Mapping[str, BaseTool]) -> None:
    message = await execute(tools, call("check_service_status", None), CONTEXT)
    assert message.tool_call_id == ""
    assert result(message)["status"] == "operational"


async def test_results_keep_accented_letters(tools: Mapping[str, BaseTool]) -> None:
    message = await execute(tools, call("search_knowledge_base", query="cartão vencido"), CONTEXT)
    assert "cartão" in str(message.content)


async def test_results_of_other_types_become_json() -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    given = {
        "plan": Plan(name="Pro"),
        "at": at,
        "id": UUID(LAURA),
        "path": Path("/tmp/x"),
        "tags": {"one"},
        "share": float("nan"),
        "raw": b"\xff",
        "odd": object,
        ("a", "b"): 1,
    }
    found = result(await execute(toolbox(returning(given)), call("give"), CONTEXT))
    assert found == {
        "plan": {"name": "Pro"},
        "at": "2026-11-01T00:00:00Z",
        "id": LAURA,
        "path": "/tmp/x",
        "tags": ["one"],
        "share": None,
        "raw": "_w==",
        "odd": "<class 'object'>",
        "a,b": 1,
    }


@pytest.mark.parametrize("given", [None, "", [], {}, 0, False, "text"])
async def test_plain_results_are_unchanged(given: Any) -> None:
    assert result(await execute(toolbox(returning(given)), call("give"), CONTEXT)) == given


async def test_a_result_longer_than_a_model_reads_is_cut_and_says_so() -> None:
    rows = [{"title": f"Article {number}", "body": "x" * 1_000} for number in range(1_000)]
    message = await execute(toolbox(returning(rows)), call("give"), CONTEXT)
    found = result(message)
    assert found.startswith('[{"title": "Article 0", "body": "xxx')
    assert found.endswith(f"… (cut: the result has {len(json.dumps(rows))} characters)")
    assert len(str(message.content)) < 1.1 * MAX_RESULT_CHARACTERS


async def test_a_result_as_long_as_a_model_reads_is_whole() -> None:
    text = "x" * (MAX_RESULT_CHARACTERS - 2)
    assert result(await execute(toolbox(returning(text)), call("give"), CONTEXT)) == text


# Calls the model can fix


async def test_an_unknown_tool_is_answered_with_the_known_ones(tools: Mapping[str, BaseTool]) -> None:
    kind, words = failure(await execute(tools, call("delete_everything"), CONTEXT))
    assert kind == "unknown_tool"
    assert "there is no tool 'delete_everything'" in words
    assert all(name in words for name in tools)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "title: Field required; description: Field required; severity: Field required"),
        ({**TICKET, "severity": "urgent"}, "severity: Input should be 'low', 'medium', 'high' or 'critical'"),
        ({**TICKET, "title": ["a"]}, "title: Input should be a valid string"),
        ({**TICKET, "title": None}, "title: Input should be a valid string"),
    ],
)
async def test_each_wrong_argument_is_named(
    tools: Mapping[str, BaseTool], args: dict[str, Any], words: str
) -> None:
    assert failure(await execute(tools, call("create_engineering_ticket", **args), CONTEXT)) == (
        "bad_arguments",
        words,
    )


async def test_a_wrong_argument_is_not_repeated_to_the_model(tools: Mapping[str, BaseTool]) -> None:
    message = await execute(tools, call(SEND, solution={"secret": "4111 1111"}), CONTEXT)
    assert failure(message)[0] == "bad_arguments"
    assert "4111" not in str(message)


async def test_a_refusal_has_the_crms_own_message(tools: Mapping[str, BaseTool]) -> None:
    nobody = CallContext(contact_id=NOBODY, idempotency_key="key-1")
    for name, args in (("get_product_version", {}), (SEND, {"solution": "Hello"})):
        assert failure(await execute(tools, call(name, **args), nobody)) == (
            "refused",
            f"There is no contact '{NOBODY}'.",
        )


@pytest.mark.parametrize("text", ["", "half a character \ud800", "\x00", "x" * 30_000])
async def test_a_text_the_crm_cannot_take_is_refused_not_a_crash(
    tools: Mapping[str, BaseTool], pool: Pool, text: str
) -> None:
    kind, words = failure(await execute(tools, call(SEND, solution=text), CONTEXT))
    assert kind == "refused"
    assert words
    assert await messages_of_agents(pool) == []


async def test_a_tool_exception_is_a_refusal() -> None:
    message = await execute(toolbox(raising(ToolException("Only on weekdays."))), call("fail"), CONTEXT)
    assert failure(message) == ("refused", "Only on weekdays.")


async def test_the_message_of_a_refusal_is_made_printable_and_bounded() -> None:
    said = json.dumps({"message": "half a character \ud800 " + "x" * 100_000})
    async with scripted_crm(Answer(422, said)) as server, crm_client(server.url) as crm:
        message = await execute(crm_tools(crm), call("check_service_status"), CONTEXT)
    kind, words = failure(message)
    assert kind == "refused"
    assert words.startswith("half a character ? xxx")
    assert len(words) == MAX_MESSAGE_CHARACTERS
    assert str(message.content).encode()


# Calls nobody can fix now


async def test_a_crm_that_is_down_is_unavailable() -> None:
    async with crm_client(f"http://127.0.0.1:{closed_port()}") as crm:
        message = await execute(crm_tools(crm), call("check_service_status"), CONTEXT)
    assert failure(message) == ("unavailable", "the CRM cannot be reached (ConnectError)")


@pytest.mark.parametrize(
    "error",
    [
        CrmUnavailable("the CRM answered 503"),
        CrmUnauthorized("the CRM answered 401"),
        CrmError("the CRM's answer does not match its contract"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_failures_that_no_arguments_can_fix_are_unavailable(error: CrmError) -> None:
    message = await execute(toolbox(raising(error)), call("fail"), CONTEXT)
    assert failure(message) == ("unavailable", error.message)


async def test_a_tool_that_hangs_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute_module, "TOOL_TIMEOUT_SECONDS", 0.01)
    ended: list[str] = []

    @tool
    async def hang() -> None:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    message = await execute(toolbox(hang), call("hang"), CONTEXT)
    assert failure(message) == ("unavailable", "the tool did not answer in time")
    assert ended == ["ended"]


async def test_a_tool_may_use_all_attempts_of_its_client_before_it_is_cancelled() -> None:
    async with crm_client(transport=httpx.MockTransport(lambda _: httpx.Response(500))) as crm:
        longest_pause = 5
        attempts, limit = crm._crm._attempts, crm._message_timeout
    assert attempts * limit + (attempts - 1) * longest_pause < execute_module.TOOL_TIMEOUT_SECONDS


async def test_a_cancelled_run_is_not_an_observation() -> None:
    with pytest.raises(asyncio.CancelledError):
        await execute(toolbox(raising(asyncio.CancelledError())), call("fail"), CONTEXT)


async def test_a_bug_in_a_tool_is_not_hidden_from_the_log() -> None:
    with pytest.raises(ZeroDivisionError):
        await execute(toolbox(raising(ZeroDivisionError())), call("fail"), CONTEXT)


# Whose contact it is


THEIRS: dict[str, Any] = {"contact_id": NOBODY, "idempotency_key": "another"}


@pytest.mark.parametrize(
    "smuggled",
    [
        {"context": THEIRS},
        {"context": CallContext(**THEIRS)},
        {"context": None},
        {"contact_id": NOBODY, "idempotency_key": "another"},
        {"type": "tool_call"},
        {"type": "tool_call", "id": "x", "name": SEND, "args": {"solution": "Evil.", "context": THEIRS}},
        {"config": {"configurable": {"contact_id": NOBODY}}, "run_manager": None, "callbacks": []},
    ],
)
async def test_the_run_alone_says_which_contact_a_tool_acts_on(
    tools: Mapping[str, BaseTool], pool: Pool, smuggled: dict[str, Any]
) -> None:
    written = call(SEND, **{"solution": "Use batches.", **smuggled})
    # Twice: the key, too, is the run's.
    assert result(await execute(tools, written, CONTEXT)) == result(await execute(tools, written, CONTEXT))
    assert await messages_of_agents(pool) == [{"contact_id": LAURA, "text": "Use batches."}]


async def test_a_tool_without_a_context_gets_none() -> None:
    given: list[dict[str, Any]] = []

    @tool
    async def note(text: str) -> None:
        """Note."""
        given.append({"text": text})

    await execute(toolbox(note), call("note", text="a", context=THEIRS, type="tool_call"), CONTEXT)
    assert given == [{"text": "a"}]


async def test_a_tool_gets_the_runs_context_itself() -> None:
    given: list[CallContext] = []

    @tool
    async def note(context: Annotated[CallContext, InjectedToolArg]) -> None:
        """Note."""
        given.append(context)

    await execute(toolbox(note), call("note"), CONTEXT)
    assert given[0] is CONTEXT


# Effects happen once


async def test_an_effect_whose_response_was_lost_happens_once(development_crm: FastAPI, pool: Pool) -> None:
    async with served(LosesFirstAnswer(development_crm)) as url, crm_client(url) as crm:
        assert result(await execute(crm_tools(crm), call(SEND, solution="Use batches."), CONTEXT))
    assert await messages_of_agents(pool) == [{"contact_id": LAURA, "text": "Use batches."}]


async def test_two_calls_of_one_thought_are_two_effects(tools: Mapping[str, BaseTool], pool: Pool) -> None:
    for call_id in ("call-1", "call-2", "call-1"):
        context = CallContext(
            contact_id=LAURA, idempotency_key=derive_idempotency_key("thread", "message", call_id)
        )
        await execute(tools, call(SEND, call_id, solution="Use batches."), context)
    assert len(await messages_of_agents(pool)) == 2


def test_the_key_of_an_effect_depends_on_thread_step_and_call_alone() -> None:
    keys = {
        derive_idempotency_key(thread, message, made)
        for thread in ("t1", "t2")
        for message in ("m1", "m2")
        for made in ("c1", "c2")
    }
    assert len(keys) == 8
    assert derive_idempotency_key("t1", "m1", "c1") in keys
    assert all(len(key) == 36 and key.isascii() for key in keys)
