"""What a tenant can see and do of another tenant's things, by every route there is: nothing."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from core.settings import QueueSettings
from graphs.registry import REGISTRY
from nodes.react.state import Reflection
from service.runs.threads import take_thread
from tests.support.general_agent import AGAIN, OTHER, PARROT, replying, service
from tests.support.identity import WITH_KEYS, key_of
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService

TASK = {"task": "Refund the lady with the yellow canary.", "contact_id": CONTACT}
SEND = ("send_solution_to_customer", {"solution": "We will refund the last invoice."})
DONE = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="I told them.")
# Waits for a person.
CANARY = {
    "name": "canary",
    "steps": [{"type": "approval", "id": "ask", "question": "May the canary have a refund?"}],
}
SECRETS = ("parrot", "canary", "refund the last invoice")
# LangServe's hash of an empty config.
STREAM = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Owned:
    """What the tenant acme has, and who looks for it."""

    running: RunningService
    model: ScriptedChatModel
    acme: dict[str, str]
    stranger: dict[str, str]
    session: str
    waiting: str
    approval: str
    workflow: str
    run: str
    webhook: str
    assistant: str
    cron: str

    async def checkpoints(self) -> int:
        async with self.running.service.pool.connection() as connection:
            row = await (await connection.execute("SELECT count(*) AS n FROM checkpoints")).fetchone()
        assert row
        return int(row["n"])


@pytest.fixture(scope="module")
async def owned(shared_database_url: str) -> AsyncIterator[Owned]:
    model = replying("A green one.")
    async with service(shared_database_url, model, auth=WITH_KEYS, queue=QueueSettings()) as running:
        acme, stranger = [await key_of(running.service, name, "admin") for name in ("acme", "other")]
        said = {"contact_id": CONTACT, "message": PARROT, "channel_id": "mail"}
        session = (await running.http.post("/v1/messages", json=said, headers=acme)).json()["session_id"]
        model.replies.append(calling("I refund.", SEND))
        begun = await running.http.post("/react/invoke", json={"input": TASK}, headers=acme)
        waiting = begun.json()["output"]["thread_id"]
        [approval] = (await running.http.get("/v1/approvals", headers=acme)).json()["approvals"]
        asks = {"definition": CANARY, "wait": True}
        workflow = (await running.http.post("/v1/workflows", json=asks, headers=acme)).json()["id"]
        listed = await running.http.get("/v1/runs", params={"thread_id": waiting}, headers=acme)
        run = listed.json()["runs"][0]["id"]
        hook = {"url": "https://hooks.example.com/canary", "types": ["deal.stage_changed"]}
        webhook = (await running.http.post("/v1/webhooks", json=hook, headers=acme)).json()["id"]
        kept = {"namespace": ["theirs"], "key": "bird", "value": {"text": PARROT}}
        await running.http.put("/store/items", json=kept, headers=acme)
        named = {"graph_id": "react", "name": "Parrot", "description": PARROT}
        made = await running.http.post("/assistants", json=named, headers=acme)
        yearly = {"assistant_id": "react", "schedule": "0 0 1 1 *", "input": TASK}
        cron = await running.http.post("/runs/crons", json=yearly, headers=acme)
        yield Owned(
            running,
            model,
            acme,
            stranger,
            session,
            waiting,
            approval["id"],
            workflow,
            run,
            webhook=webhook,
            assistant=made.json()["assistant_id"],
            cron=cron.json()["cron_id"],
        )


Asked = dict[str, Any]


def _run(owned: Owned, path: str) -> Iterator[Asked]:
    """Every way to name a thread to LangServe, with every strategy that could touch a run on it.

    The graphs whose threads they are not are asked in one way each.
    """
    spec = REGISTRY[path.split("/")[1]]
    theirs = {"react": owned.waiting, "coordinator": owned.session}
    threads = tuple(theirs.values()) if spec.name in theirs else (owned.waiting,)
    strategies = ("enqueue", "reject", "interrupt") if path == f"/{spec.name}/invoke" else ("interrupt",)
    for thread in threads:
        for strategy in strategies:
            named = {"configurable": {"thread_id": thread, "multitask_strategy": strategy}}
            yield {"url": path, "json": _given(path, spec.example, named)}
        yield {"url": path, "json": _given(path, {"resume": {"decision": "approve"}}, named)}
        if "session_id" in spec.input_schema.model_fields and not path.endswith("/batch"):
            yield {"url": path, "json": {"input": {**spec.example, "session_id": thread}}}


def _given(path: str, given: Any, config: Any) -> Asked:
    body = {"inputs": [given]} if path.endswith("/batch") else {"input": given}
    return {**body, "config": config}


def _messages(owned: Owned, path: str) -> Iterator[Asked]:
    for thread in (owned.session, owned.waiting):
        for contact in (CONTACT, OTHER):
            said = {"contact_id": contact, "message": AGAIN, "session_id": thread}
            for headers in ({}, STREAM):
                for strategy in ("enqueue", "interrupt"):
                    yield {"url": path, "json": {**said, "multitask_strategy": strategy}, "headers": headers}


def _chat(owned: Owned, path: str) -> Iterator[Asked]:
    chat = {"model": "coordinator", "messages": [{"role": "user", "content": AGAIN}]}
    for session in (owned.session, owned.waiting):
        for contact in (CONTACT, ""):
            for is_streamed in (False, True):
                named = {"X-Session-Id": session, "X-Contact-Id": contact}
                yield {"url": path, "json": {**chat, "stream": is_streamed}, "headers": named}


def _named(*names: str) -> Callable[[Owned, str], Iterator[Asked]]:
    def walk(owned: Owned, path: str) -> Iterator[Asked]:
        for name in names:
            for value in {getattr(owned, name), getattr(owned, name).upper(), "nobodys.nobody"}:
                yield {"url": re.sub(r"\{\w+\}", value, path), "json": {"decision": "approve"}}

    return walk


def _workflow(owned: Owned, path: str) -> Iterator[Asked]:
    for asked in ({}, {"action": "retry"}, {"action": "rollback_to_checkpoint", "checkpoint_id": "x"}):
        yield {"url": path.replace("{run_id}", owned.workflow).replace("{name}", "go"), "json": asked}


def _one_run(owned: Owned, path: str) -> Iterator[Asked]:
    yield {"url": path.replace("{run_id}", owned.run)}


def _webhook(owned: Owned, path: str) -> Iterator[Asked]:
    yield {"url": re.sub(r"\{\w+\}", owned.webhook, path), "json": {"description": "mine"}}


def _no_definition(owned: Owned, path: str) -> Iterator[Asked]:
    yield {"url": path, "json": {"name": "theirs", "client_id": owned.workflow}}


def _plain(owned: Owned, path: str) -> Iterator[Asked]:
    yield {"url": path, "params": {"contact_id": CONTACT}}


def _memory(owned: Owned, path: str) -> Iterator[Asked]:
    for contact in (CONTACT, OTHER):
        asked = {"contact_id": contact, "query": PARROT, "session_id": owned.session}
        names = {"forget": ("contact_id", "session_id"), "remember": ("contact_id",)}
        fields = names.get(path.rpartition("/")[2], ("contact_id", "query"))
        body = {name: asked[name] for name in fields}
        yield {
            "url": path.replace("{note_type}", "shared").replace("{key}", "bird"),
            "params": {"contact_id": contact, "agent": "general"},
            "json": {**body, "text": "Mine."} if path.endswith("remember") else body,
        }


def _streams(owned: Owned, path: str) -> Iterator[Asked]:
    """Every way to begin, answer or follow a run on a thread with LangGraph's clients."""
    run = {"assistant_id": "react", "input": TASK, "multitask_strategy": "rollback"}
    answer = {"interrupt_id": owned.approval.partition(".")[0], "response": {"decision": "approve"}}
    bodies: dict[str, list[Any]] = {
        "stream": [run, {"assistant_id": "react", "command": {"resume": {"decision": "approve"}}}],
        "commands": [
            {"id": 1, "method": "run.start", "params": run},
            {"id": 2, "method": "input.respond", "params": answer},
            {"id": 3, "method": "agent.getTree", "params": {"run_id": owned.run}},
        ],
        "events": [{"channels": ["values", "messages", "input"]}],
    }
    for thread in (owned.waiting, owned.session):
        url = path.replace("{thread_id}", thread).replace("{run_id}", owned.run)
        for body in bodies[path.rpartition("/")[2]]:
            yield {"url": url, "json": body, "headers": {"Last-Event-ID": "-1"}}


def _asking(**body: Any) -> Callable[[Owned, str], Iterator[Asked]]:
    """Ask for what acme has, in the path and in a body, whose own texts may name it too."""

    def walk(owned: Owned, path: str) -> Iterator[Asked]:
        names = {"run_id": owned.run, "assistant_id": owned.assistant, "cron_id": owned.cron}
        names |= {"checkpoint_id": owned.run, "namespace": "agent", "thread": owned.waiting}
        for thread in (owned.waiting, owned.session):
            url = path.replace("{thread_id}", thread)
            for name, value in names.items():
                url = url.replace(f"{{{name}}}", value)
            told = json.dumps(body)
            for name, value in names.items():
                told = told.replace(f"<{name}>", value)
            asked: Asked = {"url": url, "json": json.loads(told)}
            if path == "/store/items":
                asked["params"] = {"namespace": "theirs", "key": "bird"}
            yield asked

    return walk


_THREAD = "/threads/{thread_id}"
_HERS = {"assistant_id": "<assistant_id>", "input": TASK, "schedule": "* * * * *"}
AGENT_SERVER: list[tuple[str, Callable[[Owned, str], Iterator[Asked]], set[int]]] = [
    (r"get /ok", _asking(), {200}),
    (r"post /assistants", _asking(graph_id="react", assistant_id="<assistant_id>"), {409}),
    (r"post /(?:assistants|threads|runs/crons)/(?:search|count)", _asking(), {200}),
    (r"(?:get|patch|delete) /assistants/{assistant_id}", _asking(name="Mine"), {404}),
    (r"post /assistants/{assistant_id}/versions", _asking(), {404}),
    (r"post /assistants/{assistant_id}/latest", _asking(version=1), {404}),
    (r"get /assistants/{assistant_id}/(?:graph|schemas|subgraphs)(?:/{namespace})?", _asking(), {404}),
    (r"post /threads", _asking(thread_id="<thread>", if_exists="do_nothing"), {409}),
    (r"post /threads/prune", _asking(thread_ids=["<thread>"]), {200}),
    (rf"(?:get|patch|delete) {_THREAD}", _asking(metadata={"a": 1}), {404}),
    (rf"(?:get|post) {_THREAD}/state", _asking(values={"task": "Mine."}), {404}),
    (rf"get {_THREAD}/state/{{checkpoint_id}}", _asking(), {404}),
    (rf"post {_THREAD}/state/checkpoint", _asking(checkpoint={"checkpoint_ns": ""}), {404}),
    (rf"(?:get|post) {_THREAD}/history", _asking(), {404}),
    (rf"post {_THREAD}/copy", _asking(), {404}),
    (rf"(?:get|post) {_THREAD}/runs(?:/wait)?", _asking(assistant_id="react", input=TASK), {404}),
    (rf"(?:get|delete|post) {_THREAD}/runs/{{run_id}}(?:/(?:join|cancel))?", _asking(), {404}),
    (rf"post {_THREAD}/runs/crons", _asking(**{**_HERS, "assistant_id": "react"}), {404}),
    (r"post /runs/crons", _asking(**_HERS), {404}),
    (r"(?:get|patch|delete) /runs/crons/{cron_id}", _asking(enabled=False), {404}),
    (r"post /runs(?:/wait)?", _asking(assistant_id="<assistant_id>", input=TASK), {404}),
    (r"post /runs/batch", _asking(), {422}),
    (r"post /runs/cancel", _asking(thread_id="<thread>", run_ids=["<run_id>"]), {204}),
    (r"put /store/items", _asking(namespace=["mine"], key="bird", value={}), {204}),
    (r"get /store/items", _asking(), {200}),
    (r"delete /store/items", _asking(namespace=["theirs"], key="bird"), {204}),
    (r"post /store/(?:items/search|namespaces)", _asking(), {200}),
]
NOT_THERE = {404}
# How each route is walked: what is asked of it, and the statuses that are right. A route that no row knows
# fails the test: say here how another tenant's things could be asked of it.
_GRAPH = rf"/(?:{'|'.join(REGISTRY)})"
ROUTES: list[tuple[str, Callable[[Owned, str], Iterator[Asked]], set[int]]] = [
    (rf"post {_GRAPH}/(?:invoke|batch|stream|stream_log|stream_events)", _run, NOT_THERE),
    (rf"get {_GRAPH}/(?:input|output|config)_schema", _plain, {200}),
    (rf"post {_GRAPH}/token_feedback", _plain, {400, 404, 422}),
    (r"post /v1/messages", _messages, NOT_THERE),
    (r"post /v1/chat/completions", _chat, NOT_THERE),
    (r"get /v1/models", _plain, {200}),
    (r"get /v1/models/{model}", _plain, NOT_THERE),
    (r"get /v1/runs", _plain, {200}),
    (r"(?:get|post) /v1/runs/{run_id}(?:/\w+)?", _one_run, NOT_THERE),
    (r"get /v1/approvals", _plain, {200}),
    (r"post /v1/approvals/{approval_id}", _named("approval"), NOT_THERE),
    (r"get /v1/(?:sessions|overview)", _plain, {200}),
    (r"(?:get|post) /v1/memory/(?:search|facts|facts/history|recall|remember|forget)", _memory, {200}),
    (r"(?:get|delete) /v1/memory/notes/{note_type}/{key}", _memory, NOT_THERE),
    (r"put /v1/memory/notes/{note_type}/{key}", _memory, {422}),
    (r"get /v1/sessions/{session_id}(?:/messages)?", _named("session", "waiting"), NOT_THERE),
    (r"post /v1/sessions/{session_id}/(?:claim|reply|release)", _named("session", "waiting"), {404, 422}),
    (r"delete /v1/threads/{thread_id}", _named("session", "waiting"), NOT_THERE),
    (r"post /threads/{thread_id}/(?:runs/stream|stream/events)", _streams, NOT_THERE),
    (r"get /threads/{thread_id}/stream", _streams, NOT_THERE),
    # Clients read these errors in the answer.
    (r"post /threads/{thread_id}/commands", _streams, {200}),
    (r"get /threads/{thread_id}/runs/{run_id}/stream", _streams, {200}),
    (r"post /runs/stream", _plain, {422}),
    (r"get /v1/workflows(?:/schema|/library)?", _plain, {200}),
    (r"post /v1/workflows(?:/validate)?", _no_definition, {200, 404, 422}),
    (r"get /v1/workflows/{run_id}(?:/\w+)?", _workflow, NOT_THERE),
    (r"post /v1/workflows/{run_id}/(?:cancel|signals/{name})", _workflow, {404, 422}),
    (r"post /v1/workflows/{run_id}/recover", _workflow, {404, 422}),
    (r"get /v1/webhooks(?:/event-types)?", _plain, {200}),
    (r"post /v1/webhooks", _plain, {422}),
    (r"(?:get|patch|delete|post) /v1/webhooks/{webhook_id}.*", _webhook, NOT_THERE),
    (r"post /v1/gateways/whatsapp", _plain, NOT_THERE),
    (r"get /(?:metrics|v1/audit|v1/agents)", _plain, {200}),
    (r"get /v1/agents/{agent_id}", _plain, NOT_THERE),
    (r"get /(?:health|info)(?:/live|/ready)?", _plain, {200}),
    *AGENT_SERVER,
]


async def test_every_route_shows_nothing_of_another_tenant(owned: Owned) -> None:
    http = owned.running.http
    before = await owned.checkpoints()
    document = (await http.get("/openapi.json", headers=owned.stranger)).json()
    walked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            rows = [row for row in ROUTES if re.fullmatch(row[0], f"{method} {path}")]
            assert len(rows) == 1, f"say in ROUTES how a stranger walks {method} {path}"
            [(_, walk, right)] = rows
            for asked in walk(owned, path):
                headers = {**owned.stranger, **asked.pop("headers", {})}
                if method == "get":
                    asked.pop("json", None)
                answered = await http.request(method, **asked, headers=headers)
                told = f"{method} {asked} -> {answered.status_code} {answered.text[:300]}"
                assert answered.status_code in right, told
                assert not any(secret in answered.text.lower() for secret in SECRETS), told
                walked += 1
    assert walked > 200
    # Nothing was begun, touched or taken.
    assert await owned.checkpoints() == before
    nothing: dict[str, Any] = {"approvals": [], "next": None}
    assert (await http.get("/v1/approvals", headers=owned.stranger)).json() == nothing
    assert len((await http.get("/v1/approvals", headers=owned.acme)).json()["approvals"]) == 2
    mine = await http.get(f"/v1/workflows/{owned.workflow}", headers=owned.acme)
    parrot = {"contact_id": CONTACT, "query": PARROT}
    remembered = await http.post("/v1/memory/search", json=parrot, headers=owned.acme)
    assert "parrot" in remembered.json()["hits"][0]["text"]
    assert mine.json()["status"] == "waiting"
    bird = await http.get("/store/items?namespace=theirs&key=bird", headers=owned.acme)
    assert bird.json()["value"] == {"text": PARROT}
    assert (await http.get(f"/runs/crons/{owned.cron}", headers=owned.acme)).json()["enabled"]
    found = await http.get("/v1/sessions", params={"contact_id": CONTACT}, headers=owned.stranger)
    assert found.json() == {"sessions": []}
    owned.model.replies.append(AIMessage("Mine."))
    said = {"contact_id": CONTACT, "message": AGAIN, "session_id": owned.session}
    assert (await http.post("/v1/messages", json=said, headers=owned.acme)).json()["response"] == "Mine."


async def test_a_thread_of_another_tenant_looks_like_one_that_does_not_exist(owned: Owned) -> None:
    for path in ("/v1/threads", "/v1/sessions"):
        method = "DELETE" if path == "/v1/threads" else "GET"
        answers = [
            await owned.running.http.request(method, f"{path}/{name}", headers=owned.stranger)
            for name in (owned.session, "0" * len(owned.session))
        ]
        bodies = [answer.text.replace(owned.session, "0" * len(owned.session)) for answer in answers]
        assert answers[0].status_code == answers[1].status_code == 404
        assert bodies[0] == bodies[1]


async def test_another_tenant_neither_stops_nor_waits_for_a_run_in_progress(owned: Owned) -> None:
    http = owned.running.http
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        asked.set()
        await go.wait()

    owned.model.before_token = slowly
    owned.model.replies.append(AIMessage("All is well."))
    body = {"input": TASK, "config": {"configurable": {"thread_id": "at-work"}}}
    run = asyncio.create_task(http.post("/react/invoke", json=body, headers=owned.acme))
    await asked.wait()
    for strategy in ("interrupt", "reject", "enqueue"):
        configurable = {"thread_id": "at-work", "multitask_strategy": strategy}
        theirs = {"input": TASK, "config": {"configurable": configurable}}
        refused = await http.post("/react/invoke", json=theirs, headers=owned.stranger)
        assert (refused.status_code, refused.json()["error"]) == (404, "not_found")
    assert (await http.delete("/v1/threads/at-work", headers=owned.stranger)).status_code == 404
    assert (await http.delete("/v1/threads/at-work", headers=owned.acme)).status_code == 409
    go.set()
    assert (await run).json()["output"]["final_answer"] == "All is well."
    owned.model.before_token = None


async def test_the_id_of_a_session_without_runs_is_taken_too(owned: Owned) -> None:
    sessions = owned.running.service.sessions
    await sessions.enter(
        "acme",
        CONTACT,
        session_id="just-opened",
        channel_id="",
        message_id="",
        new_id="unused",
        authorize=partial(take_thread, tenant="acme", user="ana"),
    )
    config = {"configurable": {"thread_id": "just-opened"}}
    refused = await owned.running.http.post(
        "/react/invoke", json={"input": TASK, "config": config}, headers=owned.stranger
    )
    assert refused.status_code == 404
    # And the refusal of a thread's id leaves no session of that name behind.
    async with owned.running.service.pool.connection() as connection:
        rows = await (
            await connection.execute("SELECT FROM sessions.sessions WHERE tenant = 'other'")
        ).fetchall()
    assert rows == []


async def test_the_scope_runs_does_not_allow_decisions(owned: Owned) -> None:
    http = owned.running.http
    runs = await key_of(owned.running.service, "acme", "runs")
    config = {"configurable": {"thread_id": owned.waiting}}
    body = {"input": {"resume": {"decision": "approve"}}, "config": config}
    refused = await http.post("/react/invoke", json=body, headers=runs)
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    assert refused.json()["details"]["scope"] == "approvals"
    owned.model.replies.append(DONE)
    both = await key_of(owned.running.service, "acme", "runs", "approvals")
    decided = await http.post("/react/invoke", json=body, headers=both)
    assert decided.json()["output"]["final_answer"] == "I told them."
