"""The audit trail records who did what, shows tampering, and can be queried."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from checkpoints.pool import open_pool
from core.context import Actor
from core.postgres import Pool
from core.settings import DatabaseSettings, Settings
from nodes.react.state import Reflection
from service.audit.chain import ChainVerdict, cut_chains, link_entries, verify_chains
from service.audit.idempotency import RecordedEffects
from service.audit.trail import AuditTrail, Entry
from service.cli.database import verify_audit
from tests.support.audit import Outside, act_on_new_thread, fetch_rows
from tests.support.general_agent import service
from tests.support.scripted import ScriptedChatModel, calling
from tests.support.service import CONTACT, RunningService

DONE = Reflection(success=True, reasoning="Done.", task_complete=True, final_answer="Told.")
REFUND = ("send_solution_to_customer", {"solution": "Ana, we will refund you."})


@pytest.fixture(scope="module")
async def pool(shared_database_url: str) -> AsyncIterator[Pool]:
    """One database for these tests; each uses a tenant of its own."""
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=1, pool_max_size=6)) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> ScriptedChatModel:
    """The model, whose replies each test sets."""
    return ScriptedChatModel()


@pytest.fixture(scope="module")
async def up(shared_database_url: str, model: ScriptedChatModel) -> AsyncIterator[RunningService]:
    """One service for all tests of this module."""
    async with service(shared_database_url, model) as running:
        yield running


async def write_entries(pool: Pool, tenant: str, count: int) -> None:
    """Write linked entries of a tenant."""
    audit = AuditTrail(pool)
    for number in range(count):
        actor = Actor(tenant=tenant, user="ana", thread_id=f"t-{number}")
        audit.note(Entry(action="run", outcome="finished", tool="react", actor=actor))
    assert await audit.flush() == count
    await link_all(pool)


async def link_all(pool: Pool) -> None:
    """Wait until every entry is linked, by this test or by the service of the other tests."""
    while (await fetch_rows(pool, "SELECT EXISTS (SELECT FROM audit.entries WHERE hash IS NULL) AS any"))[0][
        "any"
    ]:
        await link_entries(pool)


async def verify_tenant(pool: Pool, tenant: str) -> ChainVerdict:
    return {one.tenant: one async for one in verify_chains(pool)}[tenant]


async def tamper(pool: Pool, statement: str, *parameters: object) -> None:
    """Change entries as a superuser who disables the triggers."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement.encode(), parameters)


async def query(up: RunningService, **filters: Any) -> dict[str, Any]:
    response = await up.http.get("/v1/audit", params=filters)
    page: dict[str, Any] = response.raise_for_status().json()
    return page


async def test_runs_effects_and_decisions_are_recorded_and_stay_when_the_thread_is_erased(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies += [calling("I refund.", REFUND), DONE]
    body = {
        "input": {"task": "Help.", "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": "audited"}},
    }
    await up.http.post("/react/invoke", json=body)
    [pending] = (await up.http.get("/v1/approvals")).json()["approvals"]
    edited = {"decision": "edit", "arguments": {"solution": "Ana, we refund half."}}
    assert (await up.http.post(f"/v1/approvals/{pending['id']}", json=edited)).status_code == 200
    assert (await up.http.delete("/v1/threads/audited")).status_code == 204
    await up.service.audit.flush()

    found = (await query(up, thread_id="audited"))["entries"]
    assert sorted((entry["action"], entry["tool"], entry["outcome"]) for entry in found) == [
        ("approval", "send_solution_to_customer", "edit"),
        ("effect", "send_message", "begun"),
        ("effect", "send_message", "finished"),
        ("erasure", "react", "erased"),
        ("run", "react", "finished"),
        ("run", "react", "waiting"),
    ]
    assert {entry["user"] for entry in found} == {"local"}
    begun = next(entry for entry in found if entry["outcome"] == "begun")
    decided = next(entry for entry in found if entry["action"] == "approval")
    assert begun["run_id"] == decided["run_id"] != ""
    assert begun["arguments"]["contact_id"] == CONTACT
    assert "Ana" not in str(found)
    assert await fetch_rows(up.service.pool, "SELECT FROM audit.effects WHERE thread_id = 'audited'") == []


async def test_a_failed_run_is_recorded_with_its_error_code(
    up: RunningService, model: ScriptedChatModel
) -> None:
    model.replies.append(RuntimeError("a bug"))
    body = {
        "input": {"task": "Help.", "contact_id": CONTACT},
        "config": {"configurable": {"thread_id": "failing"}},
    }
    assert (await up.http.post("/react/invoke", json=body)).status_code == 500
    await up.service.audit.flush()
    [found] = (await query(up, thread_id="failing"))["entries"]
    assert (found["action"], found["outcome"]) == ("run", "internal_error")


async def test_entries_are_filtered_by_user_action_and_time_and_paged(up: RunningService, pool: Pool) -> None:
    audit = AuditTrail(pool)
    for number, user in enumerate(("bea", "bea", "cid", "bea")):
        action: Any = "key" if number else "run"
        await audit.record(Entry(action=action, outcome=f"o{number}", actor=Actor(user=user)))
    await audit.record(Entry(action="key", outcome="theirs", actor=Actor(tenant="another", user="bea")))

    async def outcomes(**wanted: Any) -> list[str]:
        return [entry["outcome"] for entry in (await query(up, **wanted))["entries"]]

    assert await outcomes(user="bea") == ["o3", "o1", "o0"]
    assert await outcomes(user="bea", action="key") == ["o3", "o1"]
    first = await query(up, user="bea", limit=2)
    assert [entry["outcome"] for entry in first["entries"]] == ["o3", "o1"]
    last = await query(up, user="bea", limit=2, before=first["next"])
    assert ([entry["outcome"] for entry in last["entries"]], last["next"]) == (["o0"], None)
    moment = first["entries"][1]["at"]
    assert await outcomes(user="bea", since=moment) == ["o3", "o1"]
    assert await outcomes(user="bea", until=moment) == ["o0"]
    for wrong in ({"since": "2026-01-01T00:00:00"}, {"action": "x"}, {"user": "a\0"}, {"before": 0}):
        assert (await up.http.get("/v1/audit", params=wrong)).status_code == 422


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entries SET outcome = 'nothing' WHERE tenant = 'fixed'",
        "UPDATE audit.entries SET hash = NULL, position = NULL WHERE tenant = 'fixed'",
        "DELETE FROM audit.entries WHERE tenant = 'fixed'",
        "TRUNCATE audit.entries",
        "TRUNCATE audit.seals",
    ],
)
async def test_the_database_refuses_to_change_or_remove_an_entry(pool: Pool, statement: str) -> None:
    await write_entries(pool, "fixed", 1)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        await fetch_rows(pool, statement)


async def test_concurrently_written_entries_are_all_linked_into_one_chain(pool: Pool) -> None:
    effects = RecordedEffects(pool)

    async def one(number: int) -> None:
        act_on_new_thread("many")
        await effects.run_once(f"e-{number}", "send_message", {"text": "x"}, Outside())
        if number % 3 == 0:
            await link_entries(pool)

    await asyncio.gather(*(one(number) for number in range(24)))
    await link_all(pool)
    found = await verify_tenant(pool, "many")
    assert (found.entries, found.unlinked, found.fault) == (48, 0, "")


@pytest.mark.parametrize(
    ("tenant", "statement", "said"),
    [
        ("t1", "UPDATE audit.entries SET user_id = 'eve' WHERE tenant = 't1' AND position = 3", "entry 3 "),
        ("t2", "UPDATE audit.entries SET at = at + '1us' WHERE tenant = 't2' AND position = 3", "entry 3 "),
        ("t3", "DELETE FROM audit.entries WHERE tenant = 't3' AND position = 3", "entry 3 is missing"),
    ],
)
async def test_tampering_is_found_at_the_first_altered_or_missing_entry(
    pool: Pool, tenant: str, statement: str, said: str
) -> None:
    await write_entries(pool, tenant, 6)
    whole = await verify_tenant(pool, tenant)
    assert (whole.fault, whole.entries, whole.head.position) == ("", 6, 6)
    await tamper(pool, statement)
    broken = await verify_tenant(pool, tenant)
    assert broken.fault.startswith(said)
    assert broken.entries == broken.head.position == int(said.split()[1]) - 1


async def test_a_chain_that_was_cut_can_be_verified_and_continues(pool: Pool) -> None:
    await write_entries(pool, "cut", 5)
    await tamper(
        pool, "UPDATE audit.entries SET at = at - '9 days'::interval WHERE tenant = 'cut' AND position <= 3"
    )
    # Verification reports the change; retention does not check.
    assert (await verify_tenant(pool, "cut")).fault
    await cut_chains(pool, timedelta(days=8))
    [seal] = await fetch_rows(pool, "SELECT * FROM audit.seals WHERE tenant = 'cut'")
    assert (seal["position"], seal["rows"]) == (3, 3)
    await link_all(pool)
    left = await verify_tenant(pool, "cut")
    assert (left.cut, left.entries, left.fault) == (3, 3, "")
    [told] = await fetch_rows(
        pool, "SELECT * FROM audit.entries WHERE tenant = 'cut' AND action = 'retention'"
    )
    assert (told["user_id"], told["details"]["entries"]) == ("retention", 3)
    assert await cut_chains(pool, timedelta(days=8)) == 0

    # Cut all of it: the next entry continues from the seal.
    await tamper(pool, "UPDATE audit.entries SET at = at - '9 days'::interval WHERE tenant = 'cut'")
    await cut_chains(pool, timedelta(days=8))
    await write_entries(pool, "cut", 1)
    left = await verify_tenant(pool, "cut")
    assert (left.cut, left.entries, left.fault) == (6, 2, "")
    await tamper(pool, "UPDATE audit.seals SET hash = 'x' WHERE tenant = 'cut' AND position = 6")
    assert (await verify_tenant(pool, "cut")).fault.startswith("entry 7 ")


async def test_the_command_names_the_broken_chain_and_entry(
    pool: Pool, shared_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", shared_database_url)
    await write_entries(pool, "whole", 2)
    await write_entries(pool, "broken", 2)
    await tamper(pool, "UPDATE audit.entries SET tool = 'x' WHERE tenant = 'broken' AND position = 2")
    assert await verify_audit(Settings.load()) == 1
    said = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert said["whole:"].startswith("ok      whole: 2 entries, 0 cut before them, 0 not linked yet; head 2 ")
    assert said["broken:"].startswith("BROKEN  broken: entry 2 (id ")


async def test_notes_wait_for_an_unavailable_database(pool: Pool, shared_database_url: str) -> None:
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=0)) as going:
        audit = AuditTrail(going)
        audit.note(Entry(action="run", outcome="finished", actor=Actor(tenant="waiting")))
    with pytest.raises(Exception, match="clos"):
        await audit.flush()
    audit._pool = pool
    assert (await audit.flush(), await audit.flush()) == (1, 0)
    assert len(await audit.find("waiting", limit=9)) == 1


async def test_notes_that_cannot_be_written_are_bounded_and_the_latest_stay(
    pool: Pool, shared_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.trail.MAX_NOTES", 3)
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=0)) as closing:
        audit = AuditTrail(closing)
    actor = Actor(tenant="bounded")
    for number in range(3):
        audit.note(Entry(action="run", outcome=f"o{number}", actor=actor))
    flushing = asyncio.create_task(audit.flush())
    await asyncio.sleep(0)
    # These arrive while the others are being written, in vain.
    for number in range(3, 5):
        audit.note(Entry(action="run", outcome=f"o{number}", actor=actor))
    with pytest.raises(Exception, match="clos"):
        await flushing
    audit._pool = pool
    assert await audit.flush() == 3
    assert [entry.outcome for entry in await audit.find("bounded", limit=9)] == ["o4", "o3", "o2"]
