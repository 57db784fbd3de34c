"""Effects on the outside are made once and recorded in the audit trail."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from checkpoints.pool import open_pool
from core.errors import CrmRefused, CrmUnavailable, DatabaseUnavailable, EffectConflict
from core.postgres import Pool
from core.settings import DatabaseSettings
from service.audit.idempotency import RecordedEffects, erase_effects
from service.audit.trail import Entry, record_entry
from tests.support.audit import Outside, act_on_new_thread, fetch_rows, list_outcomes

TEXT = {"contact_id": "c-1", "text": "Use the batch export API, Ana."}


@pytest.fixture(scope="module")
async def pool(shared_database_url: str) -> AsyncIterator[Pool]:
    """One database for these tests: each acts on a thread of its own."""
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=1, pool_max_size=4)) as opened:
        yield opened


async def state(pool: Pool, key: str) -> tuple[str, int]:
    [found] = await fetch_rows(pool, "SELECT state, attempts FROM audit.effects WHERE key = %s", key)
    return found["state"], found["attempts"]


async def test_a_finished_effect_is_not_made_again_and_returns_its_outcome(pool: Pool) -> None:
    actor, outside, effects = act_on_new_thread(), Outside(), RecordedEffects(pool)
    first = await effects.run_once(actor.run_id, "send_message", TEXT, outside)
    assert await effects.run_once(actor.run_id, "send_message", TEXT, outside) == first == {"id": "made-1"}
    assert outside.calls == 1
    assert await list_outcomes(pool, actor) == [("send_message", "begun"), ("send_message", "finished")]


async def test_an_effect_with_an_unknown_outcome_or_a_refusal_is_made_again(pool: Pool) -> None:
    actor, effects = act_on_new_thread(), RecordedEffects(pool)
    outside = Outside(CrmUnavailable("no answer"), asyncio.CancelledError(), CrmRefused("no", crm_status=409))
    for fault, left in (
        (CrmUnavailable, "begun"),
        (asyncio.CancelledError, "begun"),
        (CrmRefused, "failed"),
    ):
        with pytest.raises(fault):
            await effects.run_once(actor.run_id, "send_message", TEXT, outside)
        assert (await state(pool, actor.run_id))[0] == left
    assert await effects.run_once(actor.run_id, "send_message", TEXT, outside) == {"id": "made-4"}
    assert await state(pool, actor.run_id) == ("finished", 4)
    assert [outcome for _, outcome in await list_outcomes(pool, actor)] == [
        *("begun", "crm_unavailable"),
        "begun",
        *("begun", "crm_refused"),
        *("begun", "finished"),
    ]


async def test_an_effect_whose_record_was_lost_meanwhile_is_finished_and_not_made_again(pool: Pool) -> None:
    act_on_new_thread()
    outside, effects = Outside(), RecordedEffects(pool)

    async def while_the_record_is_lost() -> dict[str, Any]:
        await fetch_rows(pool, "DELETE FROM audit.effects WHERE key = 'lost' RETURNING key")
        return await outside()

    await effects.run_once("lost", "send_message", TEXT, while_the_record_is_lost)
    assert await state(pool, "lost") == ("finished", 1)
    assert await effects.run_once("lost", "send_message", TEXT, outside) == {"id": "made-1"}


async def test_an_effect_is_finished_although_its_record_is_not_committed_yet(
    pool: Pool, shared_database_url: str
) -> None:
    actor, outside, effects = act_on_new_thread(), Outside(), RecordedEffects(pool)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    async with await psycopg.AsyncConnection.connect(shared_database_url) as other:

        async def while_it_is_written_again() -> dict[str, Any]:
            await other.execute("DELETE FROM audit.effects WHERE key = 'late'")
            await other.execute(
                "INSERT INTO audit.effects (tenant, key, thread_id, run_id, action, arguments_hash, state) "
                "VALUES ('default', 'late', %s, '', 'send_message', '', 'begun')",
                (actor.thread_id,),
            )
            return await outside()

        ending = asyncio.create_task(
            effects.run_once("late", "send_message", TEXT, while_it_is_written_again)
        )
        while not await fetch_rows(pool, waiting):  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)
        await other.commit()
        await ending
    assert (await state(pool, "late"))[0] == "finished"
    outcomes = [outcome for _, outcome in await list_outcomes(pool, actor)]
    assert outcomes == ["begun", "finished"]


async def test_ending_an_effect_brings_no_record_of_an_erased_thread_back(pool: Pool) -> None:
    actor, outside, effects = act_on_new_thread(), Outside(), RecordedEffects(pool)

    async def while_the_thread_is_erased() -> dict[str, Any]:
        async with pool.connection() as connection:
            await erase_effects(connection, actor.thread_id)
            await record_entry(connection, Entry(action="erasure", outcome="erased"))
        return await outside()

    await effects.run_once(actor.run_id, "send_message", TEXT, while_the_thread_is_erased)
    query = "SELECT * FROM audit.effects WHERE thread_id = %s"
    assert await fetch_rows(pool, query, actor.thread_id) == []
    outcomes = [outcome for _, outcome in await list_outcomes(pool, actor)]
    assert outcomes == ["begun", "erased", "finished"]


@pytest.mark.parametrize("other", [("hand_over", TEXT), ("send_message", {**TEXT, "text": "Another."})])
async def test_a_key_cannot_be_reused_for_another_effect(
    pool: Pool, other: tuple[str, dict[str, Any]]
) -> None:
    actor, effects = act_on_new_thread(), RecordedEffects(pool)
    outside = Outside(CrmUnavailable("no answer"))
    for (action, arguments), error in ((("send_message", TEXT), CrmUnavailable), (other, EffectConflict)):
        with pytest.raises(error):
            await effects.run_once(actor.run_id, action, arguments, outside)
    assert outside.calls == 1


async def test_tenants_do_not_share_effect_keys(pool: Pool) -> None:
    outside, effects = Outside(), RecordedEffects(pool)
    for tenant in ("a", "b"):
        act_on_new_thread(tenant)
        await effects.run_once("the same key", "send_message", TEXT, outside)
    assert outside.calls == 2


async def test_an_effect_that_cannot_be_recorded_is_not_made(pool: Pool, shared_database_url: str) -> None:
    act_on_new_thread()
    settings = DatabaseSettings(url=SecretStr(shared_database_url), pool_min_size=0)
    async with open_pool(shared_database_url, settings) as closed:
        pass
    outside = Outside()
    with pytest.raises(DatabaseUnavailable, match="was not done"):
        await RecordedEffects(closed).run_once("k", "send_message", TEXT, outside)
    assert outside.calls == 0


async def test_the_error_says_that_an_effect_was_made_but_not_recorded(
    pool: Pool, shared_database_url: str
) -> None:
    actor = act_on_new_thread()
    outside = Outside()
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=0)) as going:

        async def while_the_database_goes() -> dict[str, Any]:
            await going.close()
            return await outside()

        with pytest.raises(DatabaseUnavailable, match="not done a second time"):
            await RecordedEffects(going).run_once(actor.run_id, "send_message", TEXT, while_the_database_goes)
    assert await state(pool, actor.run_id) == ("begun", 1)
    # The key, which is the same, has the other side do it once.
    await RecordedEffects(pool).run_once(actor.run_id, "send_message", TEXT, outside)
    assert await state(pool, actor.run_id) == ("finished", 2)


async def test_an_erased_thread_has_no_effects_but_redacted_audit_entries(pool: Pool) -> None:
    actor, effects = act_on_new_thread(), RecordedEffects(pool)
    await effects.run_once(actor.run_id, "send_message", TEXT, Outside())
    async with pool.connection() as connection:
        await erase_effects(connection, actor.thread_id)
    query = "SELECT * FROM audit.effects WHERE thread_id = %s"
    assert await fetch_rows(pool, query, actor.thread_id) == []
    begun, _ = await fetch_rows(pool, "SELECT * FROM audit.entries WHERE thread_id = %s", actor.thread_id)
    assert (begun["user_id"], begun["run_id"]) == ("ana", actor.run_id)
    assert begun["arguments"] == {"contact_id": "c-1", "text": {"characters": 30}}
