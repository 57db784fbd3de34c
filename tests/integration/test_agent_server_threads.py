"""Threads, their states, assistants, crons and the store, with LangGraph's own client."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError
from typing_extensions import TypedDict

from core.errors import InvalidRequest
from core.memory import Scope
from core.settings import QueueSettings
from nodes.react.state import Reflection
from service.agent_server.crons import CronRunner, derive_run_id, find_next
from service.agent_server.expiry import Expiry
from tests.support.general_agent import say, service
from tests.support.identity import WITH_KEYS, key_of
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService

TASK = {"task": "Export fails.", "contact_id": CONTACT}
SEND = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
NOTES = {"namespace_prefix": ["contact_memory", "ana"]}
NOTE = {"namespace": ["contact_memory", "ana", "shared", "crm"], "key": "k", "value": {"text": "Kind."}}
TOLD = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")


@pytest.fixture(scope="module")
def model() -> ScriptedChatModel:
    return ScriptedChatModel()


@pytest.fixture(scope="module")
async def up(shared_database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    async with service(shared_database_url, model, queue=QueueSettings()) as running:
        yield running


@pytest.fixture(scope="module")
async def client(up: RunningService) -> AsyncIterator[Any]:
    async with get_client(url=up.url) as opened:
        yield opened


async def test_a_state_is_read_changed_and_forked_and_its_thread_copied_and_pruned(
    client: Any, model: ScriptedChatModel
) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    empty = await client.threads.get_state(thread_id)
    assert (empty["values"], empty["next"], await client.threads.get_history(thread_id)) == ({}, [], [])
    with pytest.raises(BadRequestError):
        await client.threads.update_state(thread_id, {"task": "Nobody knows the graph."})
    model.replies.append(AIMessage("Use the batch API."))
    await client.runs.wait(thread_id, "react", input=TASK)
    history = await client.threads.get_history(thread_id, limit=50)
    assert history[0]["values"]["final_answer"] == "Use the batch API."
    [first] = await client.threads.get_history(thread_id, metadata={"source": "input"})
    assert first["next"] == ["__start__"]

    written = await client.threads.update_state(
        thread_id, {"messages": [{"role": "user", "content": "And now?"}], "instruction": "Be brief."}
    )
    state = await client.threads.get_state(thread_id)
    assert state["checkpoint"]["checkpoint_id"] == written["checkpoint"]["checkpoint_id"]
    assert state["values"]["messages"][-1]["content"] == "And now?"
    chosen = await client.threads.get_state(thread_id, select=["values.instruction"])
    assert chosen == {"values": {"instruction": "Be brief."}}
    with pytest.raises(UnprocessableEntityError):
        await client.threads.update_state(thread_id, {"flavour": "mint"})
    with pytest.raises(BadRequestError):
        await client.threads.update_state(thread_id, {"instruction": "x"}, as_node="nobody")

    # Studio's "run from here": a fork of an earlier checkpoint, and a run on it.
    model.replies.append(AIMessage("Another way."))
    await client.threads.update_state(thread_id, None, as_node="__copy__", checkpoint=first["checkpoint"])
    again: Any = await client.runs.wait(thread_id, "react", input=None)
    assert again["final_answer"] == "Another way."
    assert len(await client.threads.get_history(thread_id, limit=50)) > len(history) + 2

    copied = await client.threads.copy(thread_id)
    copy_id = copied["thread_id"]
    assert (await client.threads.get(copy_id))["values"]["final_answer"] == "Another way."
    kept: Any = await client.threads.prune([copy_id], strategy="keep_latest")
    assert kept == {"pruned_count": 1}
    assert len(await client.threads.get_history(copy_id, limit=50)) < len(history)
    pruned: Any = await client.threads.prune([copy_id, str(uuid4())])
    assert pruned == {"pruned_count": 1}
    with pytest.raises(NotFoundError):
        await client.threads.get_state(copy_id)


async def test_a_session_of_the_crm_is_a_thread_that_shows_its_contact(
    up: RunningService, client: Any, model: ScriptedChatModel
) -> None:
    model.replies.append(AIMessage("A green one."))
    answer = await say(up, "Which parrot?", channel_id="mail")
    [thread] = await client.threads.search(metadata={"contact_id": CONTACT, "graph_id": "coordinator"})
    assert thread["thread_id"] == answer["session_id"]
    assert (
        thread["metadata"].items()
        >= {
            "graph_id": "coordinator",
            "contact_id": CONTACT,
            "channel_id": "mail",
            "agent": answer["agent_used"],
        }.items()
    )
    assert await client.threads.count(metadata={"agent": answer["agent_used"]}) == 1
    assert await client.threads.count(metadata={"contact_id": str(uuid4())}) == 0
    assert thread["values"]["response"] == "A green one."


async def test_an_assistant_has_versions_and_its_graph_explains_itself(
    up: RunningService, client: Any
) -> None:
    [own] = await client.assistants.search(graph_id="react", metadata={"created_by": "system"})
    # As Studio sends it.
    sent_as_text = await up.http.post(
        "/assistants/search",
        content='{"graph_id": "react", "metadata": {"created_by": "system"}}',
        headers={"Content-Type": "text/plain;charset=UTF-8"},
    )
    assert sent_as_text.json() == [own]
    assert own["description"]
    drawn = await client.assistants.get_graph(own["assistant_id"], xray=True)
    silent = [node["id"] for node in drawn["nodes"] if "description" not in node.get("metadata", {})]
    assert silent == ["__start__", "__end__"]
    schemas = await client.assistants.get_schemas(own["assistant_id"])
    assert schemas["context_schema"]
    assert set(schemas["context_schema"]["properties"]) == {"locale", "model"}
    assert schemas["state_schema"]
    assert "messages" in schemas["state_schema"]["properties"]

    made = await client.assistants.create("react", name="Brief", context={"locale": "pt-BR"})
    changed = await client.assistants.update(made["assistant_id"], context={"locale": "es"})
    assert (changed["version"], changed["context"], changed["name"]) == (2, {"locale": "es"}, "Brief")
    versions = await client.assistants.get_versions(made["assistant_id"])
    assert [each["version"] for each in versions] == [2, 1]
    back = await client.assistants.set_latest(made["assistant_id"], 1)
    assert (back["version"], back["context"]) == (1, {"locale": "pt-BR"})
    with pytest.raises(ConflictError):
        await client.assistants.create("react", assistant_id=made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.create("no-such-graph")
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.update(made["assistant_id"], context={"flavour": "mint"})
    await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get(made["assistant_id"])


async def test_a_cron_begins_each_of_its_runs_once(
    up: RunningService, client: Any, model: ScriptedChatModel
) -> None:
    for wrong in ({"schedule": "* * * * * *"}, {"schedule": "0 9 * * 1-5", "timezone": "Mars/Base"}):
        with pytest.raises(UnprocessableEntityError):
            await client.crons.create("react", input=TASK, **wrong)
    with pytest.raises(UnprocessableEntityError):
        await client.crons.create("react", schedule="0 9 * * *", input={"task": 1})
    cron: Any = await client.crons.create(
        "react", schedule="0 9 * * 1-5", timezone="America/Sao_Paulo", input=TASK, on_run_completed="keep"
    )
    assert cron["next_run_date"].endswith("12:00:00+00:00")
    due = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    async with up.service.pool.connection() as connection:
        await connection.execute(
            "UPDATE runs.crons SET next_run_at = %s WHERE id = %s", (due, cron["cron_id"])
        )
    model.replies.append(AIMessage("Good morning."))
    runner = CronRunner(up.service.pool, up.service.runs, up.service.run_store, up.service.run_builder)
    await runner.run_pass()
    async with up.service.pool.connection() as connection:
        # As if the process had died between the run and the cron's next time.
        await connection.execute(
            "UPDATE runs.crons SET next_run_at = %s WHERE id = %s", (due, cron["cron_id"])
        )
    await runner.run_pass()
    thread_id = derive_run_id(cron["cron_id"], due)
    [run] = await client.runs.list(thread_id)
    values: Any = await client.runs.join(thread_id, run["run_id"])
    assert values["final_answer"] == "Good morning."
    assert run["metadata"] == {"cron_id": cron["cron_id"]}
    for changed in ({"flavour": "mint"}, {"input": {"task": 1}}, {"durability": "exit"}):
        with pytest.raises(UnprocessableEntityError):
            await client.http.patch(f"/runs/crons/{cron['cron_id']}", json=changed)
    stopped = await client.crons.update(cron["cron_id"], enabled=False)
    assert stopped["next_run_date"] is None
    await client.crons.delete(cron["cron_id"])
    assert await client.crons.count() == 0


def test_a_schedule_follows_the_clocks_of_its_zone() -> None:
    winter = find_next("0 9 * * *", "Europe/Lisbon", datetime(2026, 1, 10, 12, tzinfo=UTC))
    summer = find_next("0 9 * * *", "Europe/Lisbon", datetime(2026, 7, 10, 12, tzinfo=UTC))
    assert winter == datetime(2026, 1, 11, 9, tzinfo=UTC)
    assert summer == datetime(2026, 7, 11, 8, tzinfo=UTC)
    assert find_next("0 0 31 2 *", None, datetime(2026, 1, 1, tzinfo=UTC)) is None


async def test_runs_without_a_thread_leave_none_behind(
    up: RunningService, client: Any, model: ScriptedChatModel
) -> None:
    model.replies += [AIMessage("Gone."), AIMessage("Kept.")]
    before = await client.threads.count()
    values: Any = await client.runs.wait(None, "react", input=TASK)
    assert values["final_answer"] == "Gone."
    bodies: Any = [{"assistant_id": "react", "input": TASK, "on_completion": "keep"}]
    [kept] = await client.runs.create_batch(bodies)
    answer: Any = await client.runs.join(kept["thread_id"], kept["run_id"])
    assert answer["final_answer"] == "Kept."
    # The thread of the first is erased by a job.
    while await client.threads.count() > before + 1:  # noqa: ASYNC110 - a row
        await asyncio.sleep(0.01)
    # What is to begin tomorrow can be cancelled today.
    later = await client.runs.create(kept["thread_id"], "react", input=TASK, after_seconds=86_400)
    assert (await client.runs.get(kept["thread_id"], later["run_id"]))["status"] == "pending"
    await client.runs.cancel_many(thread_id=kept["thread_id"], run_ids=[later["run_id"]])
    assert (await client.runs.get(kept["thread_id"], later["run_id"]))["status"] == "interrupted"


async def test_a_thread_lives_as_long_as_it_was_given(up: RunningService, client: Any) -> None:
    short = await client.threads.create(ttl=1)
    long = await client.threads.create(ttl={"ttl": 10_000, "strategy": "keep_latest"})
    async with up.service.pool.connection() as connection:
        await connection.execute("UPDATE runs.threads SET updated_at = now() - interval '2 minutes'")
    served = up.service
    expiry = Expiry(
        served.pool, served.queue, served.runs, served.erasure, threads=served.threads, items=served.items
    )
    await expiry.sweep()
    with pytest.raises(NotFoundError):
        await client.threads.get(short["thread_id"])
    shown: Any = await client.threads.get(long["thread_id"], include=["ttl"])
    assert shown["ttl"]["strategy"] == "keep_latest"


async def test_every_graph_is_drawn_and_described(client: Any) -> None:
    for assistant in await client.assistants.search(metadata={"created_by": "system"}, limit=100):
        drawn = await client.assistants.get_graph(assistant["assistant_id"], xray=True)
        assert {"__start__", "__end__"} < {str(node["id"]) for node in drawn["nodes"]}
        schemas = await client.assistants.get_schemas(assistant["assistant_id"])
        assert schemas["input_schema"]["properties"]
        await client.assistants.get_subgraphs(assistant["assistant_id"], recurse=True)


async def test_the_store_finds_items_by_meaning_and_keeps_tenants_apart(
    up: RunningService, client: Any
) -> None:
    await client.store.put_item(["users", "ana"], "food", {"text": "Ana loves pasta and pizza."})
    await client.store.put_item(["users", "ana"], "work", {"text": "She repairs bicycles."})
    await client.store.put_item(["users", "ana2"], "food", {"text": "Rice."}, index=False)
    found = (await client.store.search_items(["users", "ana"], query="Italian meals", limit=1))["items"]
    assert [item["key"] for item in found] == ["food"]
    assert found[0]["score"]
    assert len((await client.store.search_items(["users"], limit=10))["items"]) == 3
    [exact] = (await client.store.search_items(["users"], filter={"text": "Rice."}))["items"]
    assert exact["namespace"] == ["users", "ana2"]
    namespaces = await client.store.list_namespaces(prefix=["users"])
    assert namespaces["namespaces"] == [["users", "ana"], ["users", "ana2"]]
    wrong = await up.http.put("/store/items", json={"namespace": ["a.b"], "key": "key", "value": {}})
    assert wrong.status_code == 422
    assert await up.service.items.search("other", ["users"]) == []
    await client.store.put_item(["brief"], "key", {"a": 1}, ttl=1)
    async with up.service.pool.connection() as connection:
        await connection.execute("UPDATE runs.items SET expires_at = now() WHERE ttl_minutes IS NOT NULL")
    assert await client.store.get_item(["brief"], "key") is None
    await up.service.items.delete_expired()


async def test_the_store_shows_the_notes_of_the_memory_by_contact_type_and_agent(
    up: RunningService, client: Any
) -> None:
    store, memory, ana = client.store, up.service.memory, Scope("default", "ana.maria")
    own = ["contact_memory", "ana%2Emaria", "working", "billing"]
    shared = ["contact_memory", "ana%2Emaria", "shared", "crm"]
    await store.put_item(own, "case", {"text": "Invoice 7 is disputed."})
    kept = await memory.get_note(ana, "case", type="working", agent="billing")
    assert kept
    assert kept.text == "Invoice 7 is disputed."
    unnamed = await memory.remember(ana, "She loves pasta and pizza.", type="shared", agent="crm")

    assert (await store.get_item(own, "case"))["value"] == {"text": "Invoice 7 is disputed."}
    listed = (await store.search_items(own[:2]))["items"]
    assert [(item["namespace"], item["key"]) for item in listed] == [
        (shared, f"#{unnamed.id}"),
        (own, "case"),
    ]
    assert (await store.get_item(shared, f"#{unnamed.id}"))["value"]["text"] == unnamed.text
    [found] = (await store.search_items(own[:2], query="Italian meals", limit=1))["items"]
    assert (found["key"], found["score"] > 0) == (f"#{unnamed.id}", True)
    assert (await store.search_items(own[:3], filter={"text": "Nothing."}))["items"] == []
    assert (await store.list_namespaces(prefix=own[:2]))["namespaces"] == [shared, own]
    cut = await store.list_namespaces(prefix=own[:2], suffix=["billing"], max_depth=3)
    assert cut["namespaces"] == [own[:3]]

    await store.delete_item(own, "case")
    assert await store.get_item(own, "case") is None
    assert await up.service.note_items.search("other", own[:2]) == []


@pytest.mark.parametrize(
    ("namespace", "changed"),
    [
        (["contact_memory"], {}),
        (["contact_memory", "ana", "forever", "crm"], {}),
        (["contact_memory", "ana", "working"], {}),
        (["contact_memory", "ana", "working", "crm", "more"], {}),
        (["contact_memory", "ana", "working", "crm"], {"value": {"text": "x", "more": 1}}),
        (["contact_memory", "ana", "working", "crm"], {"value": {"text": ""}}),
        (["contact_memory", "ana", "working", "crm"], {"ttl": 5}),
        (["contact_memory", "ana", "working", "crm"], {"index": False}),
        (["contact_memory", "ana", "working", "crm"], {"key": "#7"}),
    ],
)
async def test_what_no_note_can_be_is_refused_by_the_store(
    up: RunningService, namespace: list[str], changed: dict[str, Any]
) -> None:
    body = {"namespace": namespace, "key": "k", "value": {"text": "x"}, **changed}
    assert (await up.http.put("/store/items", json=body)).status_code == 422


async def test_a_graph_cannot_keep_items_where_the_store_shows_the_memory(up: RunningService) -> None:
    with pytest.raises(InvalidRequest, match="the memory's"):
        await up.service.items.put("default", ["contact_memory", "ana"], "k", {})


async def test_a_remote_graph_is_a_node_that_asks_and_whose_state_can_be_changed(
    client: Any, model: ScriptedChatModel
) -> None:
    class Outer(TypedDict, total=False):
        task: str
        contact_id: str
        final_answer: str

    remote = RemoteGraph("react", client=client)
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    model.replies += [calling("I tell them.", SEND), TOLD]
    await client.threads.create(thread_id=config["configurable"]["thread_id"])
    outer = StateGraph(Outer).add_node("agent", remote).add_edge(START, "agent").compile()
    asked: Any = await outer.ainvoke({"task": TASK["task"], "contact_id": CONTACT}, config)
    assert "final_answer" not in asked or not asked["final_answer"]
    state = await remote.aget_state(config)
    assert state.next
    [question] = state.interrupts
    answered = await remote.ainvoke(Command(resume={question.id: {"decision": "approve"}}), config)
    assert answered["final_answer"] == "Told."
    await remote.aupdate_state(config, {"instruction": "Be brief."})
    assert (await remote.aget_state(config)).values["instruction"] == "Be brief."


async def test_the_scope_runs_writes_no_state_and_deletes_no_thread(database_url: str) -> None:
    async with service(database_url, ScriptedChatModel(), auth=WITH_KEYS) as running:
        key = await key_of(running.service, "acme", "runs")
        thread = (await running.http.post("/threads", json={}, headers=key)).json()["thread_id"]
        refused = [
            await running.http.post(f"/threads/{thread}/state", json={"values": {}}, headers=key),
            await running.http.post(
                f"/threads/{thread}/runs",
                json={"assistant_id": "react", "command": {"goto": "finish"}},
                headers=key,
            ),
            await running.http.delete(f"/threads/{thread}", headers=key),
            await running.http.post("/threads/prune", json={"thread_ids": [thread]}, headers=key),
            await running.http.put("/store/items", json=NOTE, headers=key),
            await running.http.post("/store/items/search", json=NOTES, headers=key),
        ]
        assert [answer.status_code for answer in refused] == [403, 403, 403, 403, 403, 403]
        other = await key_of(running.service, "other", "admin")
        for method, path in (("GET", ""), ("GET", "/state"), ("GET", "/runs"), ("DELETE", "")):
            assert (
                await running.http.request(method, f"/threads/{thread}{path}", headers=other)
            ).status_code == 404
        async with get_client(
            url=running.url, api_key=key["Authorization"].removeprefix("Bearer ")
        ) as client:
            assert [each["thread_id"] for each in await client.threads.search()] == [thread]
        found = await running.http.post("/threads/search", json={}, headers=other)
        assert found.json() == []
