"""The contract of the memory port, for the embedded memory and for the same memory over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from checkpoints.pool import open_pool
from core.errors import MemoryRefused, MemoryUnavailable
from core.memory import Edge, Hit, Memory, Message, NewFact, Node, Scope
from core.postgres import Pool
from core.settings import DatabaseSettings
from memory import embedded
from tests.support.memory_grpc import ANA, NOON, lexical_embedder, make_message, over_grpc

Call: TypeAlias = Callable[[Memory], Awaitable[Any]]


@asynccontextmanager
async def opened(url: str, how: str) -> AsyncIterator[tuple[Memory, Pool]]:
    """Yield the memory in the database, directly or over gRPC."""
    async with (
        open_pool(url, DatabaseSettings(pool_min_size=0, pool_max_size=8)) as pool,
        embedded.open_memory(pool, lexical_embedder()) as own,
    ):
        if how == "embedded":
            yield own, pool
        else:
            async with over_grpc(own) as remote:
                yield remote, pool


@pytest.fixture(scope="module", params=["embedded", "over gRPC"])
async def memory(request: pytest.FixtureRequest, shared_database_url: str) -> AsyncIterator[Memory]:
    """Share one database among all tests; each has a tenant of its own."""
    async with opened(shared_database_url, request.param) as (memory, _):
        yield memory


@pytest.fixture
def ana() -> Scope:
    return Scope(uuid4().hex, "ana")


def ids(found: list[Message]) -> list[str]:
    return [message.id for message in found]


async def found(memory: Memory, scope: Scope, query: str, **named: Any) -> list[str]:
    result = await memory.search(scope, query, **named)
    return [hit.id for hit in result.hits]


# Facts and summaries among what is found


async def test_a_fact_is_found_besides_messages_without_changing_their_order(
    memory: Memory, ana: Scope
) -> None:
    texts = ["The parrot sings at night.", "Our plan is to sell seeds.", "Which plan has exports?", "Fine."]
    await memory.add_messages(ana, [make_message(f"m{n}", text, minutes=n) for n, text in enumerate(texts)])
    asked = "Which plan are we on?"
    before = await settled(memory, ana, asked)
    assert {hit.kind for hit in before} == {"message"}
    # One that has nothing to do with it changes nothing.
    await memory.upsert_facts(ana, [fact("city", "Lima", "m0")])
    assert await settled(memory, ana, asked) == before
    [change] = await memory.upsert_facts(ana, [fact("plan", "Enterprise", "m1", valid_from=NOON)])
    after = await settled(memory, ana, asked)
    [hit] = [hit for hit in after if hit.kind == "fact"]
    assert (hit.id, hit.text, hit.at) == (change.fact.id, "contact plan: Enterprise", NOON)
    assert [(rank.retriever, rank.rank) for rank in hit.ranks] == [("fact", 1)]
    assert hit.score > 0
    assert [hit for hit in after if hit.kind == "message"] == before
    scored = [hit.score for hit in after if hit.score]
    assert scored == sorted(scored, reverse=True)


async def test_a_fact_is_found_for_as_long_as_it_holds(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(ana, [make_message("m1", "Hello.")])
    await memory.upsert_facts(ana, [fact("plan", "Enterprise", "m1", valid_from=NOON)])
    later = NOON + timedelta(days=30)
    await memory.upsert_facts(ana, [fact("plan", "Basic", "m2", valid_from=later)])

    async def plans(**at: Any) -> list[str]:
        hits = (await memory.search(ana, "plan", **at)).hits
        return [hit.text for hit in hits if hit.kind == "fact"]

    assert await plans() == ["contact plan: Basic"]
    # Nothing was believed then.
    assert await plans(as_of=NOON - timedelta(days=1)) == []


async def test_a_summary_is_returned_as_a_summary(memory: Memory, ana: Scope) -> None:
    told = [
        make_message("summary:s1", "They spoke of parrots.", role="note"),
        make_message("m1", "Parrots!", minutes=1),
    ]
    await memory.add_messages(ana, told)
    hits = (await memory.search(ana, "parrots")).hits
    assert {hit.id: hit.kind for hit in hits} == {"summary:s1": "summary", "m1": "message"}


async def settled(memory: Memory, scope: Scope, query: str) -> list[Hit]:
    """Search after every vector exists."""
    while (result := await memory.search(scope, query)).degraded:  # noqa: ASYNC110 - a service's indexer
        await asyncio.sleep(0.01)
    return list(result.hits)


# Notes with a key


async def test_a_note_with_a_key_is_replaced_by_the_next_one(memory: Memory, ana: Scope) -> None:
    kept: dict[str, Any] = {"type": "working", "agent": "support"}
    assert await memory.get_note(ana, "step", **kept) is None
    first = await memory.remember(ana, "Asked for the log.", key="step", **kept)
    other = await memory.remember(ana, "Asked for the log.", key="other", **kept)
    plain = await memory.remember(ana, "Asked for the log.", **kept)
    assert len({first.id, other.id, plain.id}) == 3
    again = await memory.remember(ana, "Has the parrot's log.", key="step", **kept)
    assert (again.id, again.key, plain.key) == (first.id, "step", "")
    found = await memory.get_note(ana, "step", **kept)
    assert found is not None
    assert (found.text, found.uses) == ("Has the parrot's log.", 1)
    assert [hit.text for hit in await memory.recall(ana, "parrot", agent="support")] == [found.text]
    assert await memory.delete_note(ana, "step", **kept) is True
    assert await memory.delete_note(ana, "step", **kept) is False
    assert await memory.get_note(ana, "step", **kept) is None
    assert await memory.get_note(ana, "other", **kept) is not None
    for key in ("", "x" * 201, "\0"):
        with pytest.raises((MemoryRefused, ValueError)):
            await memory.get_note(ana, key, **kept)


# Contexts


async def test_a_context_holds_messages_and_facts_with_dates(memory: Memory, ana: Scope) -> None:
    parrot = replace(make_message("m1", "My parrot is called Lorito."), session_id="s0")
    summary = make_message(
        "summary:s0", "They talked about the parrot.", minutes=1, session_id="s0", role="note"
    )
    await memory.add_messages(
        ana, [parrot, summary, make_message("m2", "Good morning!", minutes=2, session_id="s2")]
    )
    [change] = await memory.upsert_facts(ana, [fact("city", "Lima", "m1")])
    context = await memory.assemble_context(ana, "What is the parrot called?", session_id="s2")
    sections = {section.name: section.included for section in context.sections}
    assert sections == {
        "facts": (change.fact.id,),
        "summary": ("summary:s0",),
        "conversation": ("m2",),
        "memories": ("m1",),
    }
    assert "- [2026-03-14, message of session s0] customer: My parrot is called Lorito." in context.text
    assert "- [2026-03-14, customer] Good morning!" in context.text
    assert "contact city: Lima [since 2026-03-14" in context.text
    assert 0 < context.tokens == sum(section.tokens for section in context.sections)
    assert (context.token_budget, context.strategy) == (2_000, "general")
    assert {hit.id for hit in context.hits} == {"m1", "summary:s0"}
    assert context.hits[0].ranks
    assert context.facts == (change.fact,)


async def test_a_context_keeps_to_its_budget_and_lists_what_is_omitted(memory: Memory, ana: Scope) -> None:
    told = [make_message(f"m{n}", f"The parrot {n} " + "eats many seeds " * 40, minutes=n) for n in range(12)]
    await memory.add_messages(ana, told)
    context = await memory.assemble_context(ana, "parrot", token_budget=600)
    assert context.tokens <= 600
    named = {identity for section in context.sections for identity in section.included}
    missing = {each.id: each.why for section in context.sections for each in section.omitted}
    assert named
    assert named | missing.keys() >= {message.id for message in told}
    assert all(missing.values())


async def test_a_context_as_of_a_day_ignores_what_came_later(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(
        ana, [make_message("m1", "The parrot is green."), make_message("m2", "It is red.", minutes=60)]
    )
    context = await memory.assemble_context(ana, "parrot", as_of=NOON + timedelta(minutes=1))
    assert [section.included for section in context.sections] == [("m1",)]


async def test_an_unknown_contact_has_an_empty_context(memory: Memory, ana: Scope) -> None:
    context = await memory.assemble_context(ana, "parrot")
    assert (context.text, context.tokens, context.sections) == ("", 0, ())


# Intents


async def test_a_message_is_routed_to_the_strategy_with_the_nearest_examples(
    memory: Memory, ana: Scope
) -> None:
    sure = await memory.route(ana, make_message("m1", "I want to cancel my subscription now."))
    assert sure.strategy == "retention"
    assert 0.5 <= sure.confidence <= 1
    assert (await memory.route(ana, make_message("m2", "A exportação dá erro 500 de novo."))).strategy == (
        "support_technical"
    )
    unlike = await memory.route(ana, make_message("m3", "xyzzy"))
    assert unlike.strategy == "general"
    assert unlike.confidence < sure.confidence
    assert (await memory.route(ana, make_message("m4", ""))).confidence == 0


# Messages


async def test_a_message_is_returned_unchanged(memory: Memory, ana: Scope) -> None:
    told = [make_message("m1", "Olá, ação! 🚀", role="human"), make_message("m2", "", minutes=1, role="note")]
    assert await memory.add_messages(ana, told) == 2
    assert await memory.recent(ana) == told


async def test_the_newest_messages_are_listed_oldest_first(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(ana, [make_message(f"m{n}", minutes=-n) for n in range(5)])
    assert ids(await memory.recent(ana, limit=3)) == ["m2", "m1", "m0"]


async def test_the_messages_of_one_session_can_be_listed(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(
        ana, [make_message("m1"), make_message("m2", session_id="s2"), make_message("m3", minutes=1)]
    )
    assert ids(await memory.recent(ana, session_id="s1")) == ["m1", "m3"]
    assert await memory.recent(ana, session_id="nowhere") == []


async def test_a_repeated_message_is_stored_once_and_unchanged(memory: Memory, ana: Scope) -> None:
    assert await memory.add_messages(ana, [make_message("m1", "first")]) == 1
    again = [make_message("m1", "second"), make_message("m2", "new", minutes=1)]
    assert await memory.add_messages(ana, again) == 1
    assert await memory.add_messages(ana, again) == 0
    assert [message.text for message in await memory.recent(ana)] == ["first", "new"]


async def test_an_invalid_message_is_refused_together_with_all_others(memory: Memory, ana: Scope) -> None:
    with pytest.raises(MemoryRefused, match="m2"):
        await memory.add_messages(ana, [make_message("m1"), make_message("m2", session_id="")])
    assert await memory.recent(ana) == []


async def test_an_empty_list_of_messages_is_accepted(memory: Memory, ana: Scope) -> None:
    assert await memory.add_messages(ana, []) == 0
    assert await memory.recent(ana) == []


async def test_a_time_in_another_zone_is_the_same_moment(memory: Memory, ana: Scope) -> None:
    there = NOON.astimezone(timezone(timedelta(hours=-3)))
    await memory.add_messages(ana, [replace(make_message("m1"), at=there)])
    [message] = await memory.recent(ana)
    assert (message.at, message.at.utcoffset()) == (NOON, timedelta(0))


async def test_characters_that_cannot_be_stored_are_left_out(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(ana, [make_message("m1", "a\0b\ud800c invoice")])
    assert [message.text for message in await memory.recent(ana)] == ["abc invoice"]
    assert await found(memory, ana, "\ud800invoice\0") == ["m1"]


async def test_long_lists_and_long_texts_are_complete_and_in_order(memory: Memory, ana: Scope) -> None:
    told = [
        make_message(f"m{n}", f"{n} " + "ß" * (4_000 if n % 15 == 0 else 40), minutes=n) for n in range(150)
    ]
    told.append(make_message("last", "ü" * 100_000, minutes=1_000))
    assert await memory.add_messages(ana, told) == 151
    assert await memory.recent(ana, limit=1_000) == told


# Search


async def test_a_search_finds_a_message_and_explains_the_hit(memory: Memory, ana: Scope) -> None:
    told = [
        make_message("m1", "The invoice of March was paid twice"),
        make_message("m2", "I like the new colours", minutes=1, session_id="s2"),
    ]
    await memory.add_messages(ana, told)
    result = await memory.search(ana, "who paid the invoice?", strategy="sales")
    best = result.hits[0]
    assert (best.kind, best.id, best.text, best.at, best.session_id) == (
        "message",
        "m1",
        told[0].text,
        NOON,
        "s1",
    )
    assert ("keyword", 1) in [(rank.retriever, rank.rank) for rank in best.ranks]
    assert best.score > 0
    assert (result.strategy, result.model) == ("sales", "lexical:hashed-ngrams")


async def test_an_unknown_contact_has_no_memories(memory: Memory, ana: Scope) -> None:
    result = await memory.search(ana, "anything")
    assert (result.hits, result.strategy, result.model) == ((), "general", "lexical:hashed-ngrams")


async def test_a_search_of_the_past_ignores_later_messages(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(
        ana, [make_message("m1", "invoice one"), make_message("m2", "invoice two", minutes=60)]
    )
    assert await found(memory, ana, "invoice", as_of=NOON + timedelta(minutes=30)) == ["m1"]
    assert sorted(await found(memory, ana, "invoice")) == ["m1", "m2"]


async def test_a_search_returns_at_most_the_limit_besides_the_newest(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(ana, [make_message(f"m{n}", f"invoice {n}", minutes=n) for n in range(30)])
    assert len(await found(memory, ana, "invoice", limit=2)) <= 2 + 4
    assert len(await found(memory, ana, "invoice", limit=20)) >= 20


async def test_a_search_returns_long_texts_completely(memory: Memory, ana: Scope) -> None:
    texts = {f"m{n}": f"invoice {n} " + "word " * 700 for n in range(100)}
    await memory.add_messages(ana, [make_message(name, text) for name, text in texts.items()])
    result = await memory.search(ana, "invoice", limit=100)
    assert {hit.id for hit in result.hits} == set(texts)
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)


# Facts


def fact(predicate: str, value: str, message: str, **more: Any) -> NewFact:
    given: dict[str, Any] = {"subject": "contact", "confidence": 0.75, **more}
    return NewFact(predicate=predicate, object=value, source_message_id=message, **given)


async def told(memory: Memory, scope: Scope, *messages: Message) -> None:
    assert await memory.add_messages(scope, messages) == len(messages)


async def test_a_fact_names_its_source_message(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1", "I live in Porto"))
    [change] = await memory.upsert_facts(ana, [fact("city", "Porto", "m1", scope_key="home")])
    assert (change.outcome, change.closed) == ("added", None)
    [kept] = await memory.list_facts(ana)
    assert kept == change.fact
    assert (kept.subject, kept.predicate, kept.object, kept.scope_key) == ("contact", "city", "Porto", "home")
    assert (kept.confidence, kept.source_message_id, kept.valid_from) == (0.75, "m1", NOON)
    assert (kept.valid_to, kept.superseded_at, kept.superseded_by) == (None, None, None)
    assert [
        again.outcome
        for again in await memory.upsert_facts(ana, [fact("city", "Porto", "m1", scope_key="home")])
    ] == ["repeated"]


async def test_a_change_closes_the_earlier_fact_and_keeps_the_past(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"), make_message("m2", minutes=60))
    [first] = await memory.upsert_facts(ana, [fact("city", "Porto", "m1")])
    [change] = await memory.upsert_facts(ana, [fact("city", "Lisbon", "m2")])
    assert change.outcome == "changed"
    assert change.closed is not None
    assert (change.closed.object, change.closed.superseded_by) == ("Porto", "m2")
    assert await objects(memory, ana) == ["Lisbon"]
    assert await objects(memory, ana, valid_at=NOON + timedelta(minutes=30)) == ["Porto"]
    assert await objects(memory, ana, believed_at=first.fact.recorded_at, valid_at=NOON) == ["Porto"]
    history = await memory.fact_history(ana, predicate="city")
    assert {fact.object for fact in history} == {"Porto", "Lisbon"}


async def test_a_corrected_fact_was_never_true_and_an_ended_fact_was(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"), make_message("m2", minutes=1), make_message("m3", minutes=2))
    await memory.upsert_facts(ana, [fact("uses", "Zapier", "m1"), fact("city", "Porto", "m1")])
    corrected = fact("city", "Braga", "m2", correction=True, instead_of="Porto")
    ended = fact("uses", "Zapier", "m3", ended=True)
    assert [change.outcome for change in await memory.upsert_facts(ana, [corrected, ended])] == [
        "corrected",
        "changed",
    ]
    assert await objects(memory, ana, predicate="uses") == []
    assert await objects(memory, ana, valid_at=NOON, predicate="city") == ["Braga"]


async def objects(memory: Memory, scope: Scope, **named: Any) -> list[str]:
    return [fact.object for fact in await memory.list_facts(scope, **named)]


async def test_facts_are_listed_by_subject_and_predicate(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"))
    given = [
        fact("uses", "Zapier", "m1"),
        fact("city", "Porto", "m1"),
        fact("city", "Faro", "m1", subject="boss"),
    ]
    await memory.upsert_facts(ana, given)
    assert await objects(memory, ana, subject="boss") == ["Faro"]
    assert await objects(memory, ana, predicate="uses") == ["Zapier"]
    assert await memory.list_facts(Scope(ana.tenant, "ben")) == []


async def test_many_facts_are_returned_completely(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"))
    for predicate in ("uses", "likes"):
        given = [fact(predicate, f"{n} " + "é" * 900, "m1") for n in range(200)]
        assert len(await memory.upsert_facts(ana, given)) == 200
    listed = await memory.list_facts(ana)
    assert len({(fact.predicate, fact.object) for fact in listed}) == len(listed) == 400


# The graph

JO = Node("person", "jo", "Jo Silva")
ACME = Node("company", "acme", "Acme, Lda.")
LISBON = Node("city", "lisbon", "Lisboa")


def edge(source: Node, kind: str, target: Node, message: str = "m1", ended: datetime | None = None) -> Edge:
    return Edge(
        source=source, type=kind, target=target, valid_from=NOON, valid_to=ended, source_message_id=message
    )


async def test_a_graph_is_followed_to_the_given_depth(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"))
    given = [edge(JO, "WORKS_AT", ACME), edge(ACME, "LOCATED_IN", LISBON)]
    assert await memory.upsert_edges(ana, given) == 2
    assert await memory.upsert_edges(ana, given) == 0
    near, far = await memory.query_graph(ana, "jo"), await memory.query_graph(ana, "jo", depth=2)
    assert (set(near.nodes), list(near.edges)) == ({JO, ACME}, given[:1])
    assert (set(far.nodes), set(far.edges)) == ({JO, ACME, LISBON}, set(given))
    assert (await memory.query_graph(ana, "acme", edge_type="LOCATED_IN")).edges == (given[1],)
    assert (await memory.query_graph(Scope(ana.tenant, "ben"), "jo")).edges == ()


async def test_the_graph_of_the_past_contains_edges_that_ended_since(memory: Memory, ana: Scope) -> None:
    await told(memory, ana, make_message("m1"), make_message("m2", minutes=60))
    hour = NOON + timedelta(hours=1)
    await memory.upsert_edges(ana, [edge(JO, "WORKS_AT", ACME)])
    await memory.upsert_edges(ana, [edge(JO, "WORKS_AT", ACME, "m2", ended=hour)])
    assert (await memory.query_graph(ana, "jo")).edges == ()
    [was] = (await memory.query_graph(ana, "jo", as_of=NOON)).edges
    assert (was.target, was.valid_to) == (ACME, hour)
    before = NOON - timedelta(days=1)
    assert (await memory.query_graph(ana, "jo", as_of=NOON, believed_at=before)).edges == ()


# Notes


async def test_a_note_is_recalled_by_its_agent_and_a_shared_one_by_all(memory: Memory, ana: Scope) -> None:
    own = await memory.remember(ana, "Invoice 7 is disputed", type="working", agent="sales")
    shared = await memory.remember(ana, "Prefers invoice by post", type="shared", agent="sales")
    assert (own.type, own.agent, own.text, own.uses) == ("working", "sales", "Invoice 7 is disputed", 0)
    assert (await memory.remember(ana, own.text, type="working", agent="sales")).id == own.id
    recalled = await memory.recall(ana, "invoice", agent="sales")
    assert {(hit.kind, hit.text) for hit in recalled} == {("item", own.text), ("item", shared.text)}
    assert [hit.text for hit in await memory.recall(ana, "invoice", agent="support")] == [shared.text]
    assert len(await memory.recall(ana, "", agent="sales", limit=1)) == 1
    assert await memory.recall(Scope(ana.tenant, "ben"), "invoice", agent="sales") == []


async def test_notes_of_all_agents_are_listed_by_type_and_agent_without_a_use(
    memory: Memory, ana: Scope
) -> None:
    await memory.remember(ana, "Invoice 7 is disputed", type="working", agent="sales", key="case")
    await memory.remember(ana, "Prefers post", type="shared", agent="sales")
    await memory.remember(ana, "Waits for parts", type="working", agent="support")
    listed = await memory.list_notes(ana)
    assert [(note.text, note.key) for note in listed] == [
        ("Waits for parts", ""),
        ("Prefers post", ""),
        ("Invoice 7 is disputed", "case"),
    ]
    working = await memory.list_notes(ana, type="working")
    assert [(note.agent, note.type) for note in working] == [("support", "working"), ("sales", "working")]
    assert [note.type for note in await memory.list_notes(ana, agent="sales")] == ["shared", "working"]
    assert [note.text for note in await memory.list_notes(ana, limit=1)] == ["Waits for parts"]
    assert {note.uses for note in await memory.list_notes(ana)} == {0}
    assert await memory.list_notes(Scope(ana.tenant, "ben")) == []


# Whose memory


@pytest.mark.parametrize("whose", ["another contact", "another tenant"])
async def test_no_scope_sees_or_erases_anothers_messages(memory: Memory, ana: Scope, whose: str) -> None:
    other = Scope(ana.tenant, "ben") if whose == "another contact" else Scope(uuid4().hex, "ana")
    await memory.add_messages(ana, [make_message("m1", "my invoice")])
    assert await memory.add_messages(other, [make_message("m1", "their invoice")]) == 1
    assert [message.text for message in await memory.recent(other)] == ["their invoice"]
    assert [hit.text for hit in (await memory.search(other, "invoice")).hits] == ["their invoice"]
    await memory.forget(other)
    assert await memory.recent(other) == []
    assert await found(memory, ana, "invoice") == ["m1"]


# Forgetting


async def test_forgetting_a_session_leaves_the_others(memory: Memory, ana: Scope) -> None:
    told = [
        make_message("m1", "invoice"),
        make_message("m2", "invoice", session_id="s2"),
        make_message("m3", "invoice"),
    ]
    await memory.add_messages(ana, told)
    assert (await memory.forget(ana, session_id="s1")).counts["messages"] == 2
    assert ids(await memory.recent(ana)) == ["m2"]
    assert await found(memory, ana, "invoice") == ["m2"]


async def test_a_forgotten_contact_may_come_back(memory: Memory, ana: Scope) -> None:
    await memory.add_messages(ana, [make_message("m1", "invoice")])
    assert (await memory.forget(ana)).counts["messages"] == 1
    assert not any((await memory.forget(ana)).counts.values())
    assert (await memory.recent(ana), await found(memory, ana, "invoice")) == ([], [])
    assert await memory.add_messages(ana, [make_message("m1", "back")]) == 1


# What does not fit

NAIVE = datetime(2026, 3, 14)  # noqa: DTZ001 - what is refused

REFUSED: dict[str, tuple[Call, str]] = {
    "no tenant": (lambda memory: memory.recent(Scope("", "ana")), "tenant"),
    "no contact": (lambda memory: memory.search(Scope("acme", ""), "x"), "contact_id"),
    "a name too long": (lambda memory: memory.forget(Scope("acme", "a" * 201)), "contact_id"),
    "a name with NUL": (lambda memory: memory.recent(Scope("acme", "a\0")), "contact_id"),
    "a name that is no text": (
        lambda memory: memory.recent(Scope("acme", "a\ud800")),
        "contact_id|surrogates",
    ),
    "no such strategy": (lambda memory: memory.search(ANA, "x", strategy="best"), "best"),  # type: ignore[arg-type]
    "no room": (lambda memory: memory.assemble_context(ANA, "x", token_budget=0), "token_budget"),
    "nobody to route for": (lambda memory: memory.route(Scope("acme", ""), make_message("m1")), "contact_id"),
    "no hits": (lambda memory: memory.search(ANA, "x", limit=0), "limit"),
    "too many hits": (lambda memory: memory.search(ANA, "x", limit=101), "limit"),
    "beyond all numbers": (lambda memory: memory.search(ANA, "x", limit=2**40), "limit|out of range"),
    "no messages": (lambda memory: memory.recent(ANA, limit=0), "limit"),
    "a past in no zone": (lambda memory: memory.search(ANA, "x", as_of=NAIVE), "time zone"),
    "a message in no zone": (
        lambda memory: memory.add_messages(ANA, [replace(make_message("m1"), at=NAIVE)]),
        "time zone",
    ),
    "a message without id": (lambda memory: memory.add_messages(ANA, [make_message("")]), "id"),
    "a message too long": (
        lambda memory: memory.add_messages(ANA, [make_message("m1", "x" * 100_001)]),
        "100000",
    ),
    "too many messages": (
        lambda memory: memory.add_messages(ANA, [make_message(f"m{n}") for n in range(1_001)]),
        "1001",
    ),
    "facts in no zone": (lambda memory: memory.list_facts(ANA, valid_at=NAIVE), "time zone"),
    "a fact of nothing": (lambda memory: memory.upsert_facts(ANA, [fact("", "x", "m1")]), "predicate"),
    "too many facts": (
        lambda memory: memory.upsert_facts(ANA, [fact("likes", str(n), "m1") for n in range(201)]),
        "201",
    ),
    "too deep": (lambda memory: memory.query_graph(ANA, "jo", depth=6), "depth"),
    "an edge to nowhere": (
        lambda memory: memory.upsert_edges(ANA, [edge(JO, "KNOWS", Node("", "", ""))]),
        "kind, key and label",
    ),
    "an empty note": (lambda memory: memory.remember(ANA, "", type="working", agent="a"), "note"),
    "a note of no type": (
        lambda memory: memory.remember(ANA, "x", type="forever", agent="a"),  # type: ignore[arg-type]
        "type 'forever' is not known",
    ),
    "nobody's notes": (lambda memory: memory.recall(ANA, "x", agent=""), "agent"),
    "too many notes": (lambda memory: memory.list_notes(ANA, limit=1_001), "limit"),
    "no such session": (lambda memory: memory.forget(ANA, session_id="s" * 201), "session_id"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_invalid_requests_are_refused_with_a_reason(memory: Memory, case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(MemoryRefused, match=words):
        await call(memory)


@pytest.mark.parametrize("how", ["embedded", "over gRPC"])
async def test_a_memory_without_its_database_is_unavailable(database_url: str, how: str) -> None:
    async with opened(database_url, how) as (memory, pool):
        await pool.close()
        with pytest.raises(MemoryUnavailable, match="database"):
            await memory.recent(ANA)
