"""The embedded memory: storing, searching, and the separation of contacts."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import MemoryRefused, MemoryUnavailable
from core.memory import STRATEGIES, Message, Scope, StrategyName
from core.postgres import Connection, Pool
from memory.embedded import open_memory
from tests.support.memory import ANA, START, Model, all_embedded, conversation, embedder, ids, make_message

SHOP = [
    "Hello, I am Ana and I write about my shop.",
    "My order ORD-48213 of two lamps has not arrived.",
    "I will look where the parcel is.",
    "Also, exporting contacts stops with Error 500.",
    "The export works again since version 4.2.1.",
    "A informação do cartão de crédito está errada.",
]


async def test_a_repeated_message_is_stored_once(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        first = make_message("The lamp is broken.", id="m1")
        again = make_message("Something else under the same id.", id="m1", minute=5)
        assert await memory.add_messages(ANA, [first, first]) == 1
        assert await memory.add_messages(ANA, [again, make_message("New.", id="m2")]) == 1
        assert {message.text for message in await memory.recent(ANA)} == {"The lamp is broken.", "New."}


async def test_messages_survive_a_restart(pool: Pool) -> None:
    model = Model()
    model.down = True
    async with open_memory(pool, embedder(model)) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
    # The service ended between the write and the vectors.
    model.down = False
    async with open_memory(pool, embedder(model)) as memory:
        await all_embedded(memory)
        result = await memory.search(ANA, "where is my parcel with lamps")
    assert result.degraded == ()
    assert set(ids(result, "vector")) == {message.id for message in conversation(SHOP)}


async def test_a_service_that_stops_while_it_stores_vectors_leaves_the_units_to_others(pool: Pool) -> None:
    async with AsyncExitStack() as stack:
        memory = await stack.enter_async_context(open_memory(pool, embedder()))
        async with pool.connection() as other, other.transaction():
            await other.execute("LOCK TABLE memory.vectors")
            await memory.add_messages(ANA, conversation(SHOP))
            await wait_for_lock(other)
            await stack.aclose()
    async with pool.connection() as other:
        counted = await other.execute(
            "SELECT count(*) AS units, count(*) FILTER (WHERE leased_until > now()) AS leased "
            "FROM memory.unembedded"
        )
        assert await counted.fetchone() == {"units": len(SHOP), "leased": 0}


async def wait_for_lock(connection: Connection) -> None:
    """Return when another connection waits for a lock."""
    waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND relation = 'memory.vectors'::regclass"
    while not (row := await (await connection.execute(waiting)).fetchone()) or not row["n"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_units_leased_by_a_dead_service_are_embedded_by_another(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        await all_embedded(memory)
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM memory.vectors")
            await connection.execute(
                "INSERT INTO memory.unembedded SELECT id, now() - interval '1 second' FROM memory.units"
            )
    async with open_memory(pool, embedder()) as memory:
        await all_embedded(memory)
        assert len(ids(await memory.search(ANA, "lamps"), "vector")) == len(SHOP)


async def test_search_works_before_the_vectors_exist_and_reports_it(pool: Pool) -> None:
    model = Model()
    model.down = True
    async with open_memory(pool, embedder(model)) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        result = await memory.search(ANA, "the parcel with the lamps", limit=2)
    assert "s1-1" in ids(result)
    [reason] = result.degraded
    assert reason.startswith("vector: The embedding model 'test:ngrams' does not answer")


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("Has my order with the lamps arrived?", "s1-1"),
        ("tell me of ord 48213", "s1-1"),
        ("What about ORD-48123?", "s1-1"),  # two digits changed places
        ("errors while exporting", "s1-3"),
        ("informacao do cartao", "s1-5"),
        ("cartões", "s1-5"),
        ("what is it with 4.2.1", "s1-4"),
    ],
)
async def test_a_question_finds_its_message_first(pool: Pool, query: str, first: str) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        await all_embedded(memory)
        result = await memory.search(ANA, query, strategy="support_technical", limit=3)
    assert ids(result)[0] == first
    assert result.model == "test:ngrams"


async def test_every_hit_names_its_retrievers(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        await all_embedded(memory)
        result = await memory.search(ANA, "Is ORD-48213 the lamp order?", limit=2)
    best = result.hits[0]
    assert {named.retriever for named in best.ranks} >= {"keyword", "vector", "trigram"}
    assert all(named.rank >= 1 for hit in result.hits for named in hit.ranks)
    assert [hit.score for hit in result.hits[:2]] == sorted(
        (hit.score for hit in result.hits[:2]), reverse=True
    )


async def test_the_newest_messages_are_always_returned(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation([f"Line {number}" for number in range(20)]))
        for query in ("", "zebra", "line 3"):
            found = [hit.id for hit in (await memory.search(ANA, query, limit=1)).hits]
            assert {"s1-19", "s1-18", "s1-17", "s1-16"} <= set(found)
            assert len(found) == len(set(found)) <= 5


async def test_a_reply_is_found_by_its_question_and_a_question_by_its_reply(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(
            ANA, conversation(["Which plan do you prefer?", "The second one.", "Fine, thanks."])
        )
        assert set(ids(await memory.search(ANA, "which plan is preferred"), "keyword")) == {"s1-0", "s1-1"}
        assert set(ids(await memory.search(ANA, "the second"), "keyword")) == {"s1-0", "s1-1", "s1-2"}


async def test_a_late_message_is_inserted_between_its_neighbours(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(
            ANA, [make_message("Zebra crossing.", minute=0), make_message("Goodbye.", minute=9)]
        )
        await all_embedded(memory)
        await memory.add_messages(ANA, [make_message("Between.", minute=5)])
        await all_embedded(memory)
        assert set(ids(await memory.search(ANA, "zebra"), "keyword")) == {"s1-0", "s1-5"}


async def test_messages_of_different_sessions_are_not_neighbours(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(
            ANA, [make_message("Zebra.", session="a"), make_message("Lion.", session="b", minute=1)]
        )
        assert ids(await memory.search(ANA, "zebra"), "keyword") == ["a-0"]


async def test_a_long_message_is_found_by_any_part_and_returned_once(pool: Pool) -> None:
    filler = "We spoke about the weather and the garden for a long time. " * 40
    letter = f"{filler}\n\nThe zebra has escaped.\n\n{filler}\n\nThe walrus is back."
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(
            ANA, [make_message(letter, id="letter"), make_message("Thank you.", minute=1)]
        )
        await all_embedded(memory)
        for query, words in (("zebra", "zebra has escaped"), ("walrus", "walrus is back")):
            result = await memory.search(ANA, query)
            assert ids(result)[0] == "letter"
            assert words in result.hits[0].text
            assert len(result.hits[0].text) < len(letter) / 2
            assert ids(result).count("letter") == 1


async def test_a_search_as_of_a_day_ignores_later_messages(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        await all_embedded(memory)
        result = await memory.search(ANA, "export error version", as_of=START + timedelta(minutes=3))
    assert {hit.id for hit in result.hits} == {"s1-0", "s1-1", "s1-2", "s1-3"}


# Whose memory


async def test_no_search_crosses_tenants_or_contacts(pool: Pool) -> None:
    text = "The secret word is zebra ZEB-12345."
    others = [Scope("acme", "bob"), Scope("other", "ana"), Scope("acm", "eana"), Scope("acme", "ana ")]
    hostile = [
        "zebra' OR '1'='1",
        "zebra | !zebra",
        "zebra:* & 'x",
        "%",
        "acme\\ana",
        "ZEB-12345 --",
        "'; --",
    ]
    async with open_memory(pool, embedder()) as memory:
        for place, scope in enumerate(others):
            # The same ids in the same sessions as Ana's.
            await memory.add_messages(scope, [make_message(f"{text} {place}", id="m1")])
        await memory.add_messages(ANA, [make_message("I like lions.", id="m1")])
        await all_embedded(memory)
        strategies: list[StrategyName] = list(STRATEGIES)
        for strategy in strategies:
            for query in ["zebra", "ZEB-12345", "what is the secret word", *hostile]:
                result = await memory.search(ANA, query, strategy=strategy, limit=100)
                assert {hit.text for hit in result.hits} <= {"I like lions."}
        assert [message.text for message in await memory.recent(ANA)] == ["I like lions."]
        assert (await memory.search(Scope("acme", "nobody"), "zebra")).hits == ()


async def test_another_contacts_words_do_not_change_a_score(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        await all_embedded(memory)
        alone = await memory.search(ANA, "lamps of my order")
        await memory.add_messages(Scope("acme", "bob"), conversation(["lamps order"] * 50))
        await all_embedded(memory)
        assert await memory.search(ANA, "lamps of my order") == alone


async def test_forgetting_deletes_only_what_was_named(pool: Pool) -> None:
    bob = Scope("acme", "bob")
    async with open_memory(pool, embedder()) as memory:
        for scope in (ANA, bob):
            await memory.add_messages(scope, conversation(SHOP))
            await memory.add_messages(scope, conversation(["Zebra.", "Lion."], session="s2"))
        await all_embedded(memory)
        counts = (await memory.forget(ANA, session_id="s2")).counts
        assert (counts["messages"], counts["units"], counts["vectors"]) == (2, 2, 2)
        assert ids(await memory.search(ANA, "zebra"), "keyword") == []
        assert len(await memory.recent(ANA)) == len(SHOP)
        assert (await memory.forget(ANA)).counts["messages"] == len(SHOP)
        assert (await memory.search(ANA, "lamps")).hits == ()
        assert (await memory.forget(ANA)).counts == {}
        assert len(await memory.recent(bob)) == len(SHOP) + 2
        # It may begin again.
        assert await memory.add_messages(ANA, [make_message("Hello again.", id="s1-0")]) == 1
        async with pool.connection() as connection:
            rows = await connection.execute("SELECT count(*) AS left FROM memory.units WHERE text = 'Zebra.'")
            assert await rows.fetchone() == {"left": 1}


@pytest.mark.parametrize("session", ["\0", "\ud800", "x" * 500])
async def test_an_unknown_session_erases_nothing(pool: Pool, session: str) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(SHOP))
        with pytest.raises(MemoryRefused, match="session_id"):
            await memory.forget(ANA, session_id=session)
        assert len(await memory.recent(ANA)) == len(SHOP)


# What does not fit


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (make_message("x", id="y" * 300), "id of 1 to 200"),
        (make_message("x" * 100_001, id="m"), "more than 100000 characters"),
        (Message(id="m", role="customer", text="x", at=datetime(2026, 5, 7), session_id="s"), "time zone"),  # noqa: DTZ001
        (Message(id="m", role="customer", text="x", at=START, session_id=""), "session_id of 1 to 200"),
    ],
)
async def test_an_invalid_message_is_refused_and_none_is_stored(
    pool: Pool, message: Message, says: str
) -> None:
    async with open_memory(pool, embedder()) as memory:
        with pytest.raises(MemoryRefused, match=says):
            await memory.add_messages(ANA, [make_message("Fine."), message])
        assert await memory.recent(ANA) == []


async def test_an_invalid_search_is_refused(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        with pytest.raises(MemoryRefused, match="strategy 'best' is not known; there are general"):
            await memory.search(ANA, "x", strategy="best")  # type: ignore[arg-type]
        with pytest.raises(MemoryRefused, match="limit"):
            await memory.search(ANA, "x", limit=0)
        with pytest.raises(MemoryRefused, match="tenant and contact_id"):
            await memory.search(Scope("", "ana"), "x")
        with pytest.raises(MemoryRefused, match="as_of"):
            await memory.search(ANA, "x", as_of=datetime(2026, 5, 7))  # noqa: DTZ001


@pytest.mark.parametrize(
    "text", ["", "\0", "\ud800 half", "🦓" * 3_000, "a" * 50_000, "( ) & | ! :* ' \\ \" <->", "\n\n\n"]
)
async def test_any_text_can_be_stored_and_searched_for(pool: Pool, text: str) -> None:
    async with open_memory(pool, embedder()) as memory:
        assert (
            await memory.add_messages(ANA, [make_message(text, id="m"), make_message("Zebra.", minute=1)])
            == 2
        )
        await all_embedded(memory)
        await memory.search(ANA, text)
        assert "s1-1" in ids(await memory.search(ANA, "zebra"))


async def test_concurrently_added_messages_are_all_stored_with_their_neighbours(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        lines = conversation([f"Word{number} here." for number in range(12)])
        added = await asyncio.gather(*(memory.add_messages(ANA, lines[at : at + 5]) for at in range(10)))
        assert sum(added) == len(lines)
        for number in range(12):
            near = {f"s1-{place}" for place in (number - 1, number, number + 1) if 0 <= place < 12}
            assert set(ids(await memory.search(ANA, f"word{number}"), "keyword")) == near


async def test_an_unavailable_database_is_reported(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, [make_message("Hello.")])
    await pool.close()
    with pytest.raises(MemoryUnavailable):
        await memory.search(ANA, "hello")


async def test_times_come_back_in_utc(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, [make_message("Hello.")])
        [message] = await memory.recent(ANA)
        [hit] = (await memory.search(ANA, "hello")).hits
        assert message.at == hit.at == START
        assert message.at.tzinfo is hit.at.tzinfo is UTC
