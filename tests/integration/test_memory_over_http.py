"""``/v1/memory`` as a caller notices it: search, facts at a time, notes, forgetting."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from checkpoints.pool import open_pool
from core.memory import Message, NewFact, Scope
from core.settings import DatabaseSettings, MemorySettings
from memory.embedded import open_memory
from memory.grpc_server import serve_memory
from tests.support.identity import WITH_KEYS, key_of
from tests.support.memory_grpc import lexical_embedder, memory_settings
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import RunningService, running_service

JANUARY = datetime(2026, 1, 5, 12, tzinfo=UTC)
JUNE = datetime(2026, 6, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    models = scripted_models(ScriptedChatModel())
    async with running_service(shared_database_url, models, auth=WITH_KEYS) as service:
        yield service


@pytest.fixture
async def http(running: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a tenant of the test's own."""
    headers = await key_of(running.service, f"t-{uuid4().hex}", "admin")
    async with httpx.AsyncClient(base_url=f"{running.url}/v1/memory", headers=headers, timeout=60) as client:
        yield client


async def tenant_of(running: RunningService, http: httpx.AsyncClient) -> str:
    """Return the tenant of a client's key."""
    assert running.service.authenticator
    return (await running.service.authenticator.identify(http.headers["Authorization"])).tenant


def about(**fields: Any) -> dict[str, Any]:
    return {"contact_id": "ana", **fields}


async def post(http: httpx.AsyncClient, path: str, **fields: Any) -> Any:
    answer = await http.post(path, json=about(**fields))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_search_and_facts_tell_what_is_known_now_then_and_what_was_believed(
    running: RunningService, http: httpx.AsyncClient
) -> None:
    ana = Scope(await tenant_of(running, http), "ana")
    memory = running.service.memory
    told = [("m1", "I moved to Lima.", JANUARY), ("m2", "My parrot is green.", JUNE)]
    await memory.add_messages(
        ana, [Message(id=id_, role="customer", text=text, at=at, session_id="s1") for id_, text, at in told]
    )
    fact = NewFact(subject="contact", predicate="city", object="Lima", confidence=0.9, source_message_id="m1")
    await memory.upsert_facts(ana, [fact])
    moved = NewFact(
        subject="contact",
        predicate="city",
        object="Cusco",
        confidence=0.9,
        source_message_id="m2",
        valid_from=JUNE,
    )
    await memory.upsert_facts(ana, [moved])

    found = await post(http, "/search", query="What colour is the parrot?", limit=1)
    assert found["hits"][0]["text"] == "My parrot is green."
    assert found["hits"][0]["ranks"][0].keys() == {"retriever", "rank", "score"}
    before = await post(http, "/search", query="parrot", as_of=JANUARY.isoformat())
    assert [hit["id"] for hit in before["hits"] if hit["kind"] == "message"] == ["m1"]

    async def cities(**asked: Any) -> list[str]:
        answer = await http.get("/facts", params={"contact_id": "ana", "predicate": "city", **asked})
        assert answer.status_code == 200, answer.text
        return [each["object"] for each in answer.json()["facts"]]

    assert await cities() == ["Cusco"]
    assert await cities(valid_at=(JUNE - timedelta(days=1)).isoformat()) == ["Lima"]
    assert await cities(believed_at=JUNE.isoformat()) == []
    assert await cities(subject="the shop") == []
    history = (await http.get("/facts/history", params={"contact_id": "ana"})).json()["facts"]
    assert [(each["object"], each["superseded_by"]) for each in history] == [
        ("Lima", "m2"),
        ("Lima", None),
        ("Cusco", None),
    ]


async def test_remember_chooses_the_type_and_says_why(http: httpx.AsyncClient) -> None:
    chosen = await post(http, "/remember", text="Prefers calls in the morning.")
    assert (chosen["note"]["type"], chosen["note"]["agent"]) == ("long_term", "crm")
    assert "'prefer'" in chosen["reason"]
    named = await post(http, "/remember", text="Prefers tea.", type="shared", agent="sales")
    assert (named["note"]["type"], named["reason"]) == ("shared", "you named it")
    # An agent sees its own notes and the shared ones.
    seen = (await post(http, "/recall", agent="support"))["notes"]
    assert [(note["text"], note["ranks"][0]["retriever"]) for note in seen] == [("Prefers tea.", "shared")]


async def test_a_note_with_a_key_is_set_read_replaced_and_deleted(http: httpx.AsyncClient) -> None:
    path = "/notes/working/step/of the case"
    who = {"contact_id": "ana", "agent": "support"}
    assert (await http.get(path, params=who)).status_code == 404
    for text in ("Asked for the log.", "Waits for the log."):
        made = await http.put(path, params=who, json={"text": text})
        assert (made.status_code, made.json()["key"]) == (200, "step/of the case")
    read = (await http.get(path, params=who)).json()
    assert (read["text"], read["type"], read["uses"]) == ("Waits for the log.", "working", 1)
    # Remembering under the key is the same thing.
    again = await post(
        http, "/remember", key="step/of the case", text="Has it.", type="working", agent="support"
    )
    assert again["note"]["id"] == read["id"]
    # Unique for a contact, a type and an agent.
    for other in ({**who, "contact_id": "bob"}, {**who, "agent": "sales"}):
        assert (await http.get(path, params=other)).status_code == 404
    assert (await http.get("/notes/shared/step/of the case", params=who)).status_code == 404
    notes = (await post(http, "/recall", query="", agent="support"))["notes"]
    assert [note["text"] for note in notes] == ["Has it."]
    assert (await http.delete(path, params=who)).status_code == 204
    gone = await http.delete(path, params=who)
    assert (gone.status_code, gone.json()["error"]) == (404, "not_found")


async def test_forgetting_erases_a_contact_and_is_in_the_audit_trail(
    running: RunningService, http: httpx.AsyncClient
) -> None:
    tenant = await tenant_of(running, http)
    for contact in ("ana", "bob"):
        await http.post("/remember", json={"contact_id": contact, "text": "Likes birds."})
    assert (await post(http, "/forget", session_id="s1"))["counts"]["notes"] == 0
    assert (await post(http, "/forget"))["counts"]["notes"] == 1
    assert (await post(http, "/recall"))["notes"] == []
    kept = (await http.post("/recall", json={"contact_id": "bob"})).json()["notes"]
    assert [note["text"] for note in kept] == ["Likes birds."]
    whole, session = await running.service.audit.find(tenant, limit=10, action="erasure")
    assert (whole.tool, whole.outcome, whole.details["notes"], whole.thread_id) == ("memory", "erased", 1, "")
    assert session.thread_id == "s1"
    assert whole.key_id.startswith("key ")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("memory:read", {"search", "facts", "recall", "GET"}),
        ("memory:write", {"remember", "PUT", "DELETE"}),
        ("erasure", {"forget"}),
        ("runs", set()),
    ],
)
async def test_each_scope_opens_its_part_of_the_memory(
    running: RunningService, scope: Any, allowed: set[str]
) -> None:
    headers = await key_of(running.service, "acme", scope)
    note = "/v1/memory/notes/shared/k?contact_id=ana"
    calls: dict[str, tuple[str, str, dict[str, Any] | None]] = {
        "search": ("POST", "/v1/memory/search", about(query="x")),
        "facts": ("GET", "/v1/memory/facts/history?contact_id=ana", None),
        "recall": ("POST", "/v1/memory/recall", about()),
        "remember": ("POST", "/v1/memory/remember", about(text="x")),
        "forget": ("POST", "/v1/memory/forget", about()),
        "PUT": ("PUT", note, {"text": "x"}),
        "GET": ("GET", note, None),
        "DELETE": ("DELETE", note, None),
    }
    opened = {
        name
        for name, (method, url, body) in calls.items()
        if (await running.http.request(method, url, json=body, headers=headers)).status_code != 403
    }
    assert opened == allowed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"query": "x"}),
        ("/search", about(query="x", tenant="other")),
        ("/search", about(query="x", as_of="2026-01-05T12:00:00")),
        ("/search", about(query="x", strategy="luck")),
        ("/remember", about(text="   ")),
        ("/remember", about(text="x\u0000")),
        ("/remember", about(text="x", type="forever")),
        ("/recall", about(query="x\u0000")),
        ("/forget", {"contact_id": ""}),
    ],
)
async def test_what_the_memory_cannot_take_is_refused(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"] in {"invalid_request", "memory_refused"}


async def test_notes_are_kept_by_a_memory_service(database_url: str) -> None:
    async with (
        open_pool(database_url, DatabaseSettings(pool_min_size=0)) as pool,
        open_memory(pool, lexical_embedder()) as memory,
        serve_memory(memory, memory_settings(), grace_seconds=0) as address,
        running_service(
            database_url,
            scripted_models(ScriptedChatModel()),
            memory=MemorySettings(grpc_target=address, grpc_timeout_seconds=60),
        ) as running,
    ):
        note = "/v1/memory/notes/long_term/tone?contact_id=ana"
        assert (await running.http.put(note, json={"text": "Formal."})).status_code == 200
        assert (await running.http.get(note)).json()["text"] == "Formal."
        assert (await running.http.delete(note)).status_code == 204
        assert (await running.http.get(note)).status_code == 404
        kept = await running.http.post("/v1/memory/remember", json=about(key="step", text="Now pays."))
        assert (kept.json()["note"]["key"], kept.json()["note"]["type"]) == ("step", "working")
        assert (await running.http.post("/v1/memory/forget", json=about())).json()["counts"]["notes"] == 1
