"""Notes of agents: who sees them, how long they last, and which are trimmed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import MemoryRefused, StartupError
from core.memory import NoteType, Scope
from core.postgres import Pool
from core.settings import MemorySettings, Settings
from memory import notes
from memory.embedded import EmbeddedMemory, open_memory
from memory.notes import SWEEP_LOCK_ID, NotePolicies, NoteSweeper
from tests.support.facts import ANA, fact_memory
from tests.support.memory import embedder
from tests.support.waiting import until

NOW = datetime(2026, 1, 10, 9, tzinfo=UTC)
SMALL = NotePolicies.from_settings(MemorySettings(capacity=5, kept_when_full=3))
SPECIFIED = NotePolicies.from_settings(MemorySettings())


@pytest.fixture
async def memory(pool: Pool) -> AsyncIterator[EmbeddedMemory]:
    async with fact_memory(pool) as opened:
        yield opened


async def remember(
    pool: Pool, text: str, kind: NoteType = "working", *, agent: str = "support", at: datetime = NOW
) -> str:
    item = await notes.remember(pool, ANA, text, kind=kind, agent=agent, policies=SMALL, now=at)
    return item.id


async def recalled(
    pool: Pool, query: str = "", *, agent: str = "support", at: datetime = NOW, scope: Scope = ANA
) -> list[str]:
    hits = await notes.recall(pool, scope, query, agent=agent, limit=10, policies=SMALL, now=at)
    return [hit.text for hit in hits]


async def rows(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) AS rows FROM memory.notes")).fetchone()
    return row["rows"] if row else 0


def test_the_policies_are_those_of_the_specification() -> None:
    assert SPECIFIED.retention == {
        "short_term": timedelta(hours=1),
        "working": timedelta(hours=24),
        "long_term": timedelta(days=30),
        "shared": timedelta(days=7),
    }
    assert (SPECIFIED.capacity, SPECIFIED.kept) == (1_000, 800)


def test_a_trim_size_above_the_capacity_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_CAPACITY", "500")
    with pytest.raises(StartupError, match="MEMORY_KEPT_WHEN_FULL must be less than MEMORY_CAPACITY"):
        Settings.load()


async def test_agents_see_their_own_notes_and_the_shared_ones(memory: EmbeddedMemory) -> None:
    await memory.remember(ANA, "Waiting for the log file", type="working", agent="support")
    await memory.remember(ANA, "Prefers calls in the morning", type="shared", agent="support")
    sales = await memory.recall(ANA, "", agent="sales")
    assert [hit.text for hit in sales] == ["Prefers calls in the morning"]
    assert sales[0].kind == "item"
    assert len(await memory.recall(ANA, "", agent="support")) == 2
    for stranger in (Scope("acme", "bruno"), Scope("globex", "ana")):
        assert await memory.recall(stranger, "", agent="support") == []


async def test_matching_notes_are_returned_best_first(memory: EmbeddedMemory) -> None:
    for note in (
        "O cliente pediu uma devolução",
        "Sends invoices on Fridays",
        "Refund of the invoice is open",
    ):
        await memory.remember(ANA, note, type="long_term", agent="support")
    hits = await memory.recall(ANA, "What about the refund of that invoice?", agent="support")
    assert [hit.text for hit in hits] == ["Refund of the invoice is open", "Sends invoices on Fridays"]
    assert [hit.text for hit in await memory.recall(ANA, "devolucao", agent="support")] == [
        "O cliente pediu uma devolução"
    ]
    assert await memory.recall(ANA, "' | \\ & !", agent="support") == []


@pytest.mark.parametrize(("kind", "kept"), SPECIFIED.retention.items())
async def test_a_note_expires(memory: EmbeddedMemory, pool: Pool, kind: NoteType, kept: timedelta) -> None:
    await remember(pool, "note", kind)
    second = timedelta(seconds=1)
    assert await recalled(pool, at=NOW + kept - second) == ["note"]
    assert await recalled(pool, at=NOW + kept) == []
    await notes.remember(
        pool, ANA, "old", kind=kind, agent="support", policies=SMALL, key="k", now=NOW - kept
    )
    assert await memory.get_note(ANA, "k", type=kind, agent="support") is None
    assert await memory.delete_note(ANA, "k", type=kind, agent="support") is False
    sweeper = NoteSweeper(pool, SMALL)
    assert await sweeper.sweep(NOW) == 1
    assert await sweeper.sweep(NOW + kept - second) == 0
    assert await sweeper.sweep(NOW + kept) == 1
    assert await rows(pool) == 0


async def test_trimming_keeps_the_most_used_notes(memory: EmbeddedMemory, pool: Pool) -> None:
    for number, note in enumerate(("apple", "cherry", "banana", "date", "elder")):
        await remember(pool, note, at=NOW + timedelta(minutes=number))
        if note in {"apple", "cherry"}:
            await recalled(pool, note, at=NOW + timedelta(minutes=number))
    await remember(pool, "fig", at=NOW + timedelta(minutes=10))
    # The two that were used, the newest of the others, and the new one, which nobody could use yet.
    assert sorted(await recalled(pool, at=NOW + timedelta(minutes=11))) == ["apple", "cherry", "elder", "fig"]


async def test_the_capacity_applies_to_each_type_and_contact(memory: EmbeddedMemory, pool: Pool) -> None:
    for number in range(5):
        await remember(pool, f"working {number}")
        await remember(pool, f"shared {number}", "shared")
    assert await rows(pool) == 10
    await remember(pool, "one more")
    assert await rows(pool) == 9


async def test_concurrent_writers_keep_to_the_capacity(memory: EmbeddedMemory, pool: Pool) -> None:
    await asyncio.gather(*(remember(pool, f"note {number}") for number in range(12)))
    assert await rows(pool) <= SMALL.capacity


async def test_repeating_a_note_renews_it(memory: EmbeddedMemory, pool: Pool) -> None:
    first = await remember(pool, "Waiting for the log file")
    assert await remember(pool, " Waiting for the log file ", at=NOW + timedelta(hours=20)) == first
    assert await recalled(pool, at=NOW + timedelta(hours=30)) == ["Waiting for the log file"]


async def test_a_lowered_capacity_trims_existing_notes(memory: EmbeddedMemory, pool: Pool) -> None:
    for number in range(5):
        await remember(pool, f"note {number}", at=NOW + timedelta(minutes=number))
    lowered = NotePolicies.from_settings(MemorySettings(capacity=2, kept_when_full=1))
    assert await NoteSweeper(pool, lowered).sweep(NOW + timedelta(minutes=9)) == 4
    assert await recalled(pool, at=NOW + timedelta(minutes=9)) == ["note 4"]


async def test_one_service_sweeps_at_a_time(memory: EmbeddedMemory, pool: Pool) -> None:
    await remember(pool, "note")
    later = NOW + timedelta(days=2)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SWEEP_LOCK_ID,))
        assert await NoteSweeper(pool, SMALL).sweep(later) == 0
    assert await NoteSweeper(pool, SMALL).sweep(later) == 1


async def test_a_failed_sweep_is_repeated(
    memory: EmbeddedMemory, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await remember(pool, "note", at=datetime.now(UTC) - timedelta(days=2))
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE memory.notes RENAME TO notes_away")
    async with open_memory(pool, embedder(), settings=MemorySettings(sweep_seconds=0.01)):
        await until(lambda: "background_pass_failed" in caplog.text)
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE memory.notes_away RENAME TO notes")
        while await rows(pool):  # noqa: ASYNC110  # the sweeper has no event
            await asyncio.sleep(0.001)


async def test_an_open_memory_sweeps_periodically(pool: Pool) -> None:
    async with open_memory(pool, embedder(), settings=MemorySettings(sweep_seconds=0.01)) as memory:
        await memory.remember(ANA, "is kept", type="working", agent="support")
        await remember(pool, "is over", at=datetime.now(UTC) - timedelta(days=2))
        while await rows(pool) > 1:  # noqa: ASYNC110  # the sweeper has no event
            await asyncio.sleep(0.001)
        assert [hit.text for hit in await memory.recall(ANA, "", agent="support")] == ["is kept"]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "memory-sweep"]


@pytest.mark.parametrize(
    ("text", "agent"), [(" ", "support"), ("x" * 4_001, "support"), ("a\0", "a"), ("a", "")]
)
async def test_an_invalid_note_is_refused(memory: EmbeddedMemory, text: str, agent: str) -> None:
    with pytest.raises(MemoryRefused):
        await memory.remember(ANA, text, type="working", agent=agent)
    with pytest.raises(MemoryRefused, match="short_term, working, long_term, shared"):
        await memory.remember(ANA, "a", type="forever", agent="a")  # type: ignore[arg-type]  # that is the fault
