"""A thread is erased for good, and only when nothing is at work on it."""

import asyncio
from typing import Any

from langchain_core.messages import AIMessage

from core.memory import Scope
from core.postgres import Pool
from service.auth.principal import LOCAL
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, EXPORT_TASK, RunningService, running_service
from tests.support.waiting import until

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "waiting_threads")
ASKED = {"task": EXPORT_TASK, "contact_id": CONTACT}


async def invoke(up: RunningService, thread: str, graph: str = "react") -> dict[str, Any]:
    body = {"input": ASKED, "config": {"configurable": {"thread_id": thread}}}
    answered = await up.http.post(f"/{graph}/invoke", json=body)
    output: dict[str, Any] = answered.raise_for_status().json()["output"]
    return output


async def left(pool: Pool, thread: str) -> int:
    async with pool.connection() as connection:
        counted = 0
        for name in TABLES:
            query = f"SELECT count(*) AS n FROM {name} WHERE thread_id = %s".encode()
            row = await (await connection.execute(query, (thread,))).fetchone()
            assert row
            counted += row["n"]
        return counted


async def test_an_erased_thread_is_gone_everywhere_and_the_others_stay(database_url: str, pool: Pool) -> None:
    async with running_service(database_url) as up:
        for thread in ("mine", "other"):
            # One that works through agents, which have namespaces of their own.
            await invoke(up, thread, "hierarchical")
        kept = await left(pool, "other")
        erased = await up.http.delete("/v1/threads/mine")
        assert (erased.status_code, erased.content) == (204, b"")
        assert await left(pool, "mine") == 0
        assert await left(pool, "other") == kept > 0

        again = await up.http.delete("/v1/threads/mine")
        assert again.status_code == 404
        assert again.json()["error"] == "not_found"

        await invoke(up, "mine")
        state = await up.service.graphs["react"].aget_state({"configurable": {"thread_id": "mine"}})
        assert [message.text for message in state.values["messages"]].count(EXPORT_TASK) == 1


async def test_a_pending_question_is_erased_with_its_thread(database_url: str) -> None:
    send = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
    model = ScriptedChatModel(replies=[calling("I refund.", send)])
    async with running_service(database_url, scripted_models(model)) as up:
        await invoke(up, "mine")
        waiting = (await up.http.get("/v1/approvals")).json()["approvals"]
        assert [approval["thread_id"] for approval in waiting] == ["mine"]
        assert (await up.http.delete("/v1/threads/mine")).status_code == 204
        assert (await up.http.get("/v1/approvals")).json()["approvals"] == []
        late = await up.http.post(f"/v1/approvals/{waiting[0]['id']}", json={"decision": "approve"})
        assert late.status_code == 404


async def test_a_thread_with_a_run_in_progress_is_not_erased(database_url: str, pool: Pool) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        asked.set()
        await go.wait()

    model = ScriptedChatModel(replies=[AIMessage("all is well")], before_token=slowly)
    async with running_service(database_url, scripted_models(model)) as up:
        run = asyncio.create_task(invoke(up, "mine"))
        await asked.wait()
        refused = await up.http.delete("/v1/threads/mine")
        assert refused.status_code == 409
        assert refused.json()["error"] == "thread_busy"
        assert refused.headers["Retry-After"]
        go.set()
        assert (await run)["final_answer"] == "all is well"
        await until(lambda: not up.service.runs.active)
        assert (await up.http.delete("/v1/threads/mine")).status_code == 204
        assert await left(pool, "mine") == 0


async def test_an_unknown_thread_and_a_malformed_id_are_refused(database_url: str) -> None:
    async with running_service(database_url) as up:
        assert (await up.http.delete("/v1/threads/nobody")).status_code == 404
        assert (await up.http.delete("/v1/threads/a%20b")).status_code == 422


async def test_another_tenants_thread_is_not_found(database_url: str, pool: Pool) -> None:
    async with running_service(database_url) as up:
        await invoke(up, "theirs")
        async with pool.connection() as connection:
            await connection.execute("UPDATE runs.threads SET tenant = 'another'")
        before = await left(pool, "theirs")
        assert (await up.http.delete("/v1/threads/theirs")).status_code == 404
        assert await left(pool, "theirs") == before


async def test_memory_forgets_an_erased_session_and_no_other(database_url: str) -> None:
    secret, other = (
        "Exporting my contacts ends with Error 500.",
        "Where is my order? It should have arrived on Monday.",
    )
    model = ScriptedChatModel(replies=[AIMessage("I see."), AIMessage("On its way.")])
    async with running_service(database_url, scripted_models(model)) as up:
        sessions: list[str] = []
        for text in (secret, other):
            body = {"contact_id": CONTACT, "message": text, "session_id": f"about-{len(sessions)}"}
            sessions.append(
                (await up.http.post("/v1/messages", json=body)).raise_for_status().json()["session_id"]
            )
        scope = Scope(LOCAL.tenant, CONTACT)
        assert {message.text for message in await up.service.memory.recent(scope)} >= {secret, other}
        assert (await up.http.delete(f"/v1/threads/{sessions[0]}")).status_code == 204
        texts = {message.text for message in await up.service.memory.recent(scope)}
        assert other in texts
        assert secret not in texts
        assert (await up.http.get(f"/v1/sessions/{sessions[0]}")).status_code == 404
        assert (await up.http.get(f"/v1/sessions/{sessions[1]}")).status_code == 200
