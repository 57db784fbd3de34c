"""Facts in valid time and in transaction time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from core.errors import MemoryRefused
from core.memory import Edge, Node, Scope
from core.postgres import Pool
from memory.bitemporal import lock_scope
from memory.embedded import EmbeddedMemory
from tests.support.facts import ANA, JANUARY, fact, fact_memory, make_message

DAY = timedelta(days=1)
TICKET = Node("ticket", "T-7", "Ticket 7")
CONTACT = Node("contact", "ana", "Ana")


@pytest.fixture
async def memory(pool: Pool) -> AsyncIterator[EmbeddedMemory]:
    async with fact_memory(pool) as opened:
        yield opened


async def value(
    memory: EmbeddedMemory,
    predicate: str,
    *,
    valid_at: datetime | None = None,
    believed_at: datetime | None = None,
) -> list[str]:
    facts = await memory.list_facts(ANA, predicate=predicate, valid_at=valid_at, believed_at=believed_at)
    return [each.object for each in facts]


async def test_a_change_closes_the_old_value_and_names_the_message_that_did_it(
    memory: EmbeddedMemory,
) -> None:
    await memory.add_messages(
        ANA, [make_message(1, "I live in Porto"), make_message(2, "I moved to Lisbon", day=30)]
    )
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1")])
    [change] = await memory.upsert_facts(ANA, [fact("city", "Lisbon", "m2")])

    assert change.outcome == "changed"
    assert change.closed is not None
    assert (change.closed.object, change.closed.superseded_by) == ("Porto", "m2")
    assert await value(memory, "city") == ["Lisbon"]
    assert await value(memory, "city", valid_at=JANUARY + 29 * DAY) == ["Porto"]
    assert await value(memory, "city", valid_at=JANUARY + 30 * DAY) == ["Lisbon"]
    history = await memory.fact_history(ANA, predicate="city")
    assert [(each.object, each.valid_to, each.superseded_by) for each in history] == [
        ("Porto", None, "m2"),
        ("Porto", JANUARY + 30 * DAY, None),
        ("Lisbon", None, None),
    ]


async def test_a_corrected_value_was_never_true_and_stays_in_the_history(memory: EmbeddedMemory) -> None:
    await memory.add_messages(
        ANA, [make_message(1, "We are 50"), make_message(2, "Actually 60, not 50", day=3)]
    )
    await memory.upsert_facts(ANA, [fact("company_size", "50", "m1", subject="company")])
    before = (await memory.fact_history(ANA))[-1].recorded_at
    [change] = await memory.upsert_facts(
        ANA, [fact("company_size", "60", "m2", subject="company", correction=True, instead_of="50")]
    )
    assert change.outcome == "corrected"
    assert change.closed is not None
    assert (change.closed.object, change.closed.superseded_by) == ("50", "m2")
    # Of the day before the correction the memory now says 60, and knows that it said 50.
    assert await value(memory, "company_size", valid_at=JANUARY + DAY) == ["60"]
    assert await value(memory, "company_size", valid_at=JANUARY + DAY, believed_at=before) == ["50"]
    assert len(await memory.fact_history(ANA)) == 2


async def test_what_was_believed_on_monday_about_april(memory: EmbeddedMemory) -> None:
    april = datetime(2026, 4, 15, tzinfo=UTC)
    await memory.upsert_facts(ANA, [fact("plan", "Basic", "m1", valid_from=JANUARY)])
    await memory.upsert_facts(ANA, [fact("plan", "Pro", "m2", valid_from=datetime(2026, 4, 1, tzinfo=UTC))])
    monday = (await memory.fact_history(ANA))[-1].recorded_at
    await memory.upsert_facts(
        ANA, [fact("plan", "Pro", "m3", valid_from=datetime(2026, 5, 1, tzinfo=UTC), correction=True)]
    )
    assert await value(memory, "plan", valid_at=april, believed_at=monday) == ["Pro"]
    assert await value(memory, "plan", valid_at=april) == ["Basic"]


async def test_a_repetition_raises_the_confidence_and_changes_nothing_else(memory: EmbeddedMemory) -> None:
    [first] = await memory.upsert_facts(ANA, [fact("city", "São Paulo", "m1", valid_from=JANUARY)])
    [again] = await memory.upsert_facts(ANA, [fact("city", "sao paulo.", "m2", confidence=0.5)])
    assert again.outcome == "repeated"
    assert again.fact.id == first.fact.id
    assert again.fact.confidence == pytest.approx(0.9)
    assert again.fact.object == "São Paulo"
    [then] = await memory.list_facts(ANA, believed_at=first.fact.recorded_at)
    assert then.confidence == pytest.approx(0.8)
    assert len(await memory.fact_history(ANA)) == 1


async def test_a_repeated_message_counts_once(memory: EmbeddedMemory) -> None:
    [first] = await memory.upsert_facts(ANA, [fact("plan", "Basic", "m1")])
    await memory.upsert_facts(ANA, [fact("plan", "Pro", "m2", correction=True)])
    for message, plan, correction in (("m1", "Basic", False), ("m2", "Pro", True)):
        [retried] = await memory.upsert_facts(ANA, [fact("plan", plan, message, correction=correction)])
        assert retried.outcome == "repeated"
        assert retried.fact.confidence == first.fact.confidence
    assert await value(memory, "plan") == ["Pro"]


async def test_an_old_message_that_is_read_late_does_not_replace_newer_facts(memory: EmbeddedMemory) -> None:
    await memory.add_messages(
        ANA, [make_message(1, "I live in Porto"), make_message(2, "I live in Lisbon", day=30)]
    )
    await memory.upsert_facts(ANA, [fact("city", "Lisbon", "m2")])
    [late] = await memory.upsert_facts(ANA, [fact("city", "Porto", "m1")])
    assert (late.outcome, late.closed) == ("added", None)
    assert await value(memory, "city") == ["Lisbon"]
    assert await value(memory, "city", valid_at=JANUARY + DAY) == ["Porto"]


async def test_an_earlier_start_extends_a_known_fact(memory: EmbeddedMemory) -> None:
    await memory.upsert_facts(ANA, [fact("city", "Lisbon", "m1", valid_from=JANUARY)])
    [again] = await memory.upsert_facts(ANA, [fact("city", "Lisbon", "m2", valid_from=JANUARY - 100 * DAY)])
    assert again.outcome == "repeated"
    assert await value(memory, "city", valid_at=JANUARY - 50 * DAY) == ["Lisbon"]


@pytest.mark.parametrize(
    "other",
    [
        fact("email", "ana@other.example", "m2", subject="Bruno"),
        fact("e_mail_of_accounts", "ana@other.example", "m2"),
        fact("email", "ana@other.example", "m2", scope_key="invoices"),
    ],
    ids=["another subject", "a predicate much like it", "another scope"],
)
async def test_a_similar_fact_does_not_replace_a_true_one(memory: EmbeddedMemory, other: object) -> None:
    await memory.upsert_facts(ANA, [fact("email", "ana@acme.example", "m1")])
    [change] = await memory.upsert_facts(ANA, [other])  # type: ignore[list-item]  # a fact
    assert change.outcome == "added"
    assert "ana@acme.example" in [each.object for each in await memory.list_facts(ANA)]


async def test_several_values_coexist_until_one_ends_or_is_corrected(
    memory: EmbeddedMemory,
) -> None:
    await memory.upsert_facts(ANA, [fact("uses", name, "m1") for name in ("Zapier", "Slack", "Teams")])
    [ended] = await memory.upsert_facts(ANA, [fact("uses", "zapier", "m2", ended=True)])
    assert ended.outcome == "changed"
    [right] = await memory.upsert_facts(
        ANA, [fact("uses", "Meet", "m3", correction=True, instead_of="Teams")]
    )
    assert right.outcome == "corrected"
    assert right.closed is not None
    assert right.closed.object == "Teams"
    assert await value(memory, "uses") == ["Slack", "Meet"]


async def test_a_correction_of_an_unknown_value_corrects_nothing_else(
    memory: EmbeddedMemory,
) -> None:
    await memory.upsert_facts(ANA, [fact("uses", "Slack", "m1")])
    [change] = await memory.upsert_facts(
        ANA, [fact("uses", "Meet", "m2", correction=True, instead_of="Teams")]
    )
    assert change.outcome == "added"
    assert await value(memory, "uses") == ["Slack", "Meet"]


async def test_a_correction_of_another_value_than_the_believed_one_is_a_change(
    memory: EmbeddedMemory,
) -> None:
    await memory.add_messages(ANA, [make_message(1, "We are 55"), make_message(2, "60, not 50", day=3)])
    await memory.upsert_facts(ANA, [fact("company_size", "55", "m1")])
    [change] = await memory.upsert_facts(
        ANA, [fact("company_size", "60", "m2", correction=True, instead_of="50")]
    )
    assert change.outcome == "changed"
    assert await value(memory, "company_size", valid_at=JANUARY + DAY) == ["55"]


async def test_a_fact_that_ended_before_its_start_was_known_does_not_hold(memory: EmbeddedMemory) -> None:
    await memory.add_messages(
        ANA, [make_message(1, "We use Zapier"), make_message(2, "We no longer use Zapier", day=30)]
    )
    await memory.upsert_facts(ANA, [fact("uses", "Zapier", "m2", ended=True)])
    assert await value(memory, "uses") == []
    await memory.upsert_facts(ANA, [fact("uses", "Zapier", "m1")])
    assert await value(memory, "uses") == []
    assert await value(memory, "uses", valid_at=JANUARY + DAY) == ["Zapier"]


async def test_the_end_of_one_value_does_not_end_another(memory: EmbeddedMemory) -> None:
    await memory.upsert_facts(ANA, [fact("employer", "Beta", "m1")])
    await memory.upsert_facts(ANA, [fact("employer", "Acme", "m2", ended=True)])
    assert await value(memory, "employer") == ["Beta"]


async def test_two_concurrent_writers_of_one_fact_leave_one_value(memory: EmbeddedMemory) -> None:
    changes = await asyncio.gather(
        *(memory.upsert_facts(ANA, [fact("company_size", str(size), f"m{size}")]) for size in range(40, 52))
    )
    assert len(changes) == 12
    believed = await memory.list_facts(ANA, predicate="company_size")
    assert len(believed) == 1
    history = await memory.fact_history(ANA, predicate="company_size")
    assert {each.object for each in history} == {str(size) for size in range(40, 52)}


async def test_the_same_fact_from_two_concurrent_writers_is_stored_once(memory: EmbeddedMemory) -> None:
    changes = await asyncio.gather(
        *(memory.upsert_facts(ANA, [fact("city", "Porto", "m1")]) for _ in range(6))
    )
    assert sorted(change.outcome for [change] in changes) == ["added", *["repeated"] * 5]
    assert len(await memory.fact_history(ANA)) == 1


async def test_a_reader_of_current_beliefs_waits_for_a_concurrent_writer(
    memory: EmbeddedMemory, pool: Pool
) -> None:
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1")])
    async with pool.connection() as writer, writer.transaction(), pool.connection() as watcher:
        await lock_scope(writer, ANA)
        asked = asyncio.create_task(memory.list_facts(ANA, believed_at=datetime.now(UTC)))
        waiting = "SELECT FROM pg_locks WHERE NOT granted"
        while not await (await watcher.execute(waiting)).fetchall():  # noqa: ASYNC110  # a lock has no event
            await asyncio.sleep(0.001)
        assert not asked.done()
    assert [each.object for each in await asked] == ["Porto"]


async def test_the_database_itself_refuses_two_values_for_one_moment(
    memory: EmbeddedMemory, pool: Pool
) -> None:
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1", valid_from=JANUARY)])
    smuggled = """
        INSERT INTO memory.facts (scope, line, subject, subject_key, predicate, object, scope_key, confidence,
                                  source_message_id, valid_from, recorded_at)
        SELECT scope, line, subject, subject_key, predicate, 'Faro', scope_key, confidence, 'm2',
               valid_from + interval '1 day', recorded_at + interval '1 second' FROM memory.facts
    """
    async with pool.connection() as connection:
        with pytest.raises(psycopg.errors.ExclusionViolation):
            await connection.execute(smuggled)


async def test_facts_and_edges_of_other_scopes_are_neither_returned_nor_changed(
    memory: EmbeddedMemory,
) -> None:
    strangers = [
        Scope("acme", "bruno"),
        Scope("globex", "ana"),
        Scope("acme:ana", "ana"),
        Scope("ACME", "ana"),
    ]
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1")])
    await memory.upsert_edges(ANA, [edge("HAS_TICKET", TICKET)])
    for stranger in strangers:
        [change] = await memory.upsert_facts(stranger, [fact("city", "Lisbon", "m1", correction=True)])
        assert (change.outcome, change.closed) == ("added", None)
        assert (await memory.query_graph(stranger, "ana")).edges == ()
        assert [each.object for each in await memory.fact_history(stranger)] == ["Lisbon"]
        await memory.forget(stranger)
    assert await value(memory, "city") == ["Porto"]
    assert len((await memory.query_graph(ANA, "ana")).edges) == 1


async def test_forgetting_a_contact_leaves_no_row(memory: EmbeddedMemory, pool: Pool) -> None:
    await memory.add_messages(ANA, [make_message(1, "I live in Porto")])
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1"), fact("city", "Faro", "m2", correction=True)])
    await memory.upsert_edges(ANA, [edge("HAS_TICKET", TICKET)])
    await memory.remember(ANA, "Prefers mornings", type="shared", agent="sales")
    counts = (await memory.forget(ANA)).counts
    assert (counts["facts"], counts["edges"], counts["notes"]) == (2, 1, 1)
    async with pool.connection() as connection:
        for table in ("facts", "edges", "notes", "statements", "lines", "nodes", "messages", "scopes"):
            rows = await (await connection.execute(f"SELECT FROM memory.{table}".encode())).fetchall()
            assert rows == [], table


async def test_forgetting_a_session_keeps_facts_that_another_session_states(memory: EmbeddedMemory) -> None:
    await memory.add_messages(
        ANA, [make_message(1, "Porto, Zapier"), make_message(2, "Porto", day=1, session="s2")]
    )
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m1"), fact("uses", "Zapier", "m1")])
    await memory.upsert_facts(ANA, [fact("city", "Porto", "m2", confidence=0.5)])
    await memory.forget(ANA, session_id="s1")
    [left] = await memory.fact_history(ANA)
    assert (left.object, left.source_message_id, left.confidence) == ("Porto", "m2", 0.5)
    [again] = await memory.upsert_facts(ANA, [fact("uses", "Zapier", "m1")])
    assert again.outcome == "added"


@pytest.mark.parametrize(
    "wrong",
    [
        {"predicate": ""},
        {"value": " . "},
        {"message": ""},
        {"confidence": 1.5},
        {"confidence": float("nan")},
        {"value": "a\0b"},
        {"valid_from": datetime(2026, 1, 1)},  # noqa: DTZ001  # that is the fault
        {"value": "x" * 1_001},
        {"ended": True, "correction": True},
    ],
)
async def test_an_invalid_fact_is_refused_together_with_all_others(
    memory: EmbeddedMemory, wrong: dict[str, object]
) -> None:
    faulty = fact(**{"predicate": "city", "value": "Porto", "message": "m1", **wrong})  # type: ignore[arg-type]
    with pytest.raises(MemoryRefused):
        await memory.upsert_facts(ANA, [fact("plan", "Pro", "m1"), faulty])
    assert await memory.fact_history(ANA) == []


def edge(
    kind: str, target: Node, message: str = "m1", *, since: datetime = JANUARY, to: datetime | None = None
) -> Edge:
    return Edge(
        source=CONTACT, type=kind, target=target, valid_from=since, valid_to=to, source_message_id=message
    )


async def test_edges_are_queried_by_valid_and_transaction_time(memory: EmbeddedMemory) -> None:
    support, sales = Node("team", "support", "Support"), Node("team", "sales", "Sales")
    assert await memory.upsert_edges(ANA, [edge("ASSIGNED_TO", support), edge("HAS_TICKET", TICKET)]) == 2
    assert await memory.upsert_edges(ANA, [edge("ASSIGNED_TO", support), edge("HAS_TICKET", TICKET)]) == 0
    before = datetime.now(UTC)
    assert await memory.upsert_edges(ANA, [edge("ASSIGNED_TO", sales, "m2", since=JANUARY + 9 * DAY)]) == 1

    async def assigned(as_of: datetime | None = None, believed_at: datetime | None = None) -> list[str]:
        graph = await memory.query_graph(
            ANA, "ana", edge_type="ASSIGNED_TO", as_of=as_of, believed_at=believed_at
        )
        return [each.target.key for each in graph.edges]

    assert await assigned() == ["sales"]
    assert await assigned(as_of=JANUARY + DAY) == ["support"]
    assert await assigned(believed_at=before) == ["support"]
    assert await assigned(as_of=JANUARY - DAY) == []
    assert await memory.upsert_edges(ANA, [edge("HAS_TICKET", TICKET, "m3", to=JANUARY + 20 * DAY)]) == 1
    graph = await memory.query_graph(ANA, "ana", as_of=JANUARY + 21 * DAY)
    assert [each.target.key for each in graph.edges] == ["sales"]


async def test_the_graph_is_followed_to_the_given_depth(memory: EmbeddedMemory) -> None:
    order, product = Node("order", "O-1", "Order 1"), Node("product", "P-1", "Desk")
    chain = [
        edge("HAS_TICKET", TICKET),
        Edge(
            source=TICKET,
            type="ABOUT",
            target=order,
            valid_from=JANUARY,
            valid_to=None,
            source_message_id="m1",
        ),
        Edge(
            source=order, type="OF", target=product, valid_from=JANUARY, valid_to=None, source_message_id="m1"
        ),
    ]
    await memory.upsert_edges(ANA, chain)
    for depth, keys in ((1, ["ana", "T-7"]), (2, ["ana", "T-7", "O-1"]), (3, ["ana", "T-7", "O-1", "P-1"])):
        graph = await memory.query_graph(ANA, "ana", depth=depth)
        assert [node.key for node in graph.nodes] == keys
        assert len(graph.edges) == depth
    assert [node.key for node in (await memory.query_graph(ANA, "O-1")).nodes] == ["O-1", "T-7", "P-1"]
    assert (await memory.query_graph(ANA, "nobody")).nodes == ()
