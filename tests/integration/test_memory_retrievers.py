"""Single retrievers, and what a search reports when one cannot be used."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from psycopg.rows import DictRow
from pydantic import SecretStr

from core.embeddings.embedder import clean_text, shorten
from core.memory import Edge, Node, Scope
from core.postgres import Pool
from core.settings import FeatureSettings, RerankSettings, Settings
from memory import database
from memory.database import Extensions, open_extensions
from memory.embedded import EmbeddedMemory, open_memory
from memory.indexer import Indexer, activate_model, load_progress
from memory.messages import add_messages
from memory.rerankers import JinaReranker, LocalReranker, open_reranker
from memory.search import SearchDeps
from nodes.coordinator import router
from tests.support.memory import ANA, START, Model, all_embedded, conversation, embedder, ids, make_message

# What the router reads of a message.
ROUTED_CHARACTERS = router._MAX_CHARACTERS
LINES = [
    f"Line {number} is about {word}." for number, word in enumerate(["zebra", "lion", "walrus", "otter"] * 8)
]


# Extensions


async def test_without_pgvector_the_other_retrievers_answer_and_the_loss_is_reported(pool: Pool) -> None:
    deps = SearchDeps(
        pool=pool, extensions=Extensions(vector=False, trigrams=False), embedder=embedder(), model=None
    )
    memory = EmbeddedMemory(deps, None)
    await memory.add_messages(ANA, conversation(["My order is ORD-48213.", "Thanks."]))
    result = await memory.search(ANA, "what became of ORD-48213")
    assert ids(result)[0] == "s1-0"
    assert [reason.partition(":")[0] for reason in result.degraded] == ["vector", "trigram"]
    assert "CREATE EXTENSION vector" in result.degraded[0]
    assert (await memory.forget(ANA)).counts["messages"] == 2


async def test_missing_extensions_are_detected(pool: Pool) -> None:
    assert await open_extensions(pool) == Extensions(vector=True, trigrams=True)
    async with pool.connection() as connection:
        await connection.execute("DROP EXTENSION vector, pg_trgm CASCADE")
        # As a role that may not create extensions.
        await connection.execute("CREATE ROLE plain; GRANT ALL ON SCHEMA memory TO plain", prepare=False)
        await connection.execute("SET ROLE plain")
        try:
            assert not await database._create_extension(connection, "vector", database.HAS_HALFVEC_SQL)
        finally:
            await connection.execute("RESET ROLE")
            await connection.execute("DROP OWNED BY plain; DROP ROLE plain", prepare=False)


# Models


async def test_a_new_model_embeds_everything_again_while_searches_continue(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(ANA, conversation(LINES))
        await all_embedded(memory)
    down = Model(64)
    down.down = True
    async with open_memory(pool, embedder(down, name="test:small", dimensions=64)) as memory:
        state = await memory.progress()
        assert (state.units, state.waiting) == (len(LINES), len(LINES))
        assert "s1-2" in ids(await memory.search(ANA, "walrus"), "keyword")
    async with open_memory(pool, embedder(name="test:small", dimensions=64)) as memory:
        await all_embedded(memory)
        result = await memory.search(ANA, "walrus")
        assert (result.model, result.degraded) == ("test:small", ())
        assert ids(result, "vector")
        # Those of the model before go once the new ones are there.
        while await vectors(pool) != {"n": len(LINES), "models": 1}:  # noqa: ASYNC110 - the indexer does it
            await asyncio.sleep(0.005)


async def vectors(pool: Pool) -> DictRow | None:
    async with pool.connection() as connection:
        rows = await connection.execute(
            "SELECT count(*) AS n, count(DISTINCT model) AS models FROM memory.vectors"
        )
        return await rows.fetchone()


async def test_an_earlier_model_keeps_its_existing_vectors(pool: Pool) -> None:
    first = embedder()
    await add_messages(pool, ANA, conversation(LINES))
    model = await activate_model(pool, first)
    await Indexer(pool, first, model).drain()
    await activate_model(pool, embedder(name="test:other"))
    assert (await load_progress(pool)).waiting == len(LINES)
    again = Model()
    model = await activate_model(pool, embedder(again))
    await Indexer(pool, embedder(again), model).drain()
    assert (await load_progress(pool)).waiting == 0


async def test_the_end_of_a_long_message_is_embedded_after_the_messages_of_others(pool: Pool) -> None:
    def letter(name: str) -> str:
        return "\n\n".join(f"{name} {part}. {'word ' * 200}" for part in range(14))

    await open_extensions(pool)
    bob = Scope("other", "bob")
    await add_messages(pool, bob, [make_message("A short question.")])
    await add_messages(pool, ANA, [make_message(letter("letter"))])
    texts: list[str] = []

    class Noting(Model):
        def embed_documents(self, documents: list[str]) -> list[list[float]]:
            texts.extend(document.split("\n")[-1].split(".")[0] for document in documents)
            return super().embed_documents(documents)

    first = replace(embedder(Noting()), batch=1)
    indexer = Indexer(pool, first, await activate_model(pool, first))
    await indexer.drain()
    assert len(texts) == 15
    assert set(texts[:8]) >= {"A short question", *(f"letter {part}" for part in range(4))}


async def test_a_long_question_is_embedded_as_for_routing(pool: Pool) -> None:
    asked: list[str] = []

    class Noting(Model):
        def embed_query(self, text: str) -> list[float]:
            asked.append(text)
            return super().embed_query(text)

    first = embedder(Noting())
    extensions = await open_extensions(pool)
    deps = SearchDeps(
        pool=pool, extensions=extensions, embedder=first, model=await activate_model(pool, first)
    )
    message = "My order has not arrived. " * 500
    await EmbeddedMemory(deps, None).search(ANA, message)
    assert asked == [clean_text(shorten(message, ROUTED_CHARACTERS))]


async def test_a_search_with_the_index_finds_the_same_in_a_large_scope(pool: Pool) -> None:
    first = embedder()
    await open_extensions(pool)
    model = await activate_model(pool, first)
    other = type(ANA)("acme", "bob")
    for scope in (ANA, other):
        await add_messages(pool, scope, conversation([f"{line} {scope.contact_id}" for line in LINES]))
    deps = SearchDeps(pool=pool, extensions=await open_extensions(pool), embedder=first, model=model)
    memory = EmbeddedMemory(deps, None)
    await Indexer(pool, first, model, exact_scan_vectors=10).drain()
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT count(*) AS n FROM memory.vectors WHERE large")
        assert await rows.fetchone() == {"n": 2 * len(LINES)}
        await connection.execute("ANALYZE memory.vectors")
    result = await memory.search(ANA, "otter", limit=100)
    assert len(ids(result, "vector")) == len(LINES)
    assert all(hit.text.endswith("ana") for hit in result.hits)


# Graph


async def test_the_graph_retriever_follows_edges_that_hold_up_to_its_limit(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        await memory.add_messages(
            ANA, conversation([f"{word} words." for word in ("First", "Second", "Third", "Fourth")])
        )
        told = [
            ("globex", "initech", None),
            ("initech", "hooli", None),
            ("hooli", "acme", None),
            ("globex", "acme", datetime(2021, 1, 1, tzinfo=UTC)),
        ]
        edges = [
            Edge(
                source=Node("company", source, source.title()),
                type="owns",
                target=Node("company", target, target.title()),
                valid_from=datetime(2020, 1, 1, tzinfo=UTC),
                valid_to=until,
                source_message_id=f"s1-{number}",
            )
            for number, (source, target, until) in enumerate(told)
        ]
        assert await memory.upsert_edges(ANA, edges) == len(edges)
        result = await memory.search(ANA, "who does Globex own?")
        assert ids(result, "graph") == ["s1-0", "s1-1"]
        assert ids(await memory.search(type(ANA)("acme", "bob"), "who does Globex own?")) == []
        asked = await memory.search(ANA, "Who owns Globex?")
        assert asked.reasons == ("graph: the question asks for a relation ('who owns')",)
        assert (await memory.forget(ANA)).counts["edges"] == 4


async def test_a_named_period_is_looked_in_and_recorded(pool: Pool) -> None:
    async with open_memory(pool, embedder()) as memory:
        texts = ["zebra", "lion", "tiger"]
        await memory.add_messages(ANA, [make_message(text, minute=n) for n, text in enumerate(texts)])
        later = START + timedelta(days=30)
        found = await memory.search(ANA, "What did I say last month?", as_of=later)
        assert ids(found, "temporal") == ["s1-2", "s1-1", "s1-0"]
        assert found.reasons == ("temporal: the question says 'last month' (2026-05-01 to 2026-05-31)",)
        assert ids(await memory.search(ANA, "What did I say last year?", as_of=later), "temporal") == []


# Rerankers


@asynccontextmanager
async def jina(handler: httpx.MockTransport) -> AsyncIterator[JinaReranker]:
    async with httpx.AsyncClient(transport=handler, base_url="http://jina", timeout=1) as http:
        yield JinaReranker(http, "test")


async def test_a_reranker_determines_the_order_and_is_named(pool: Pool) -> None:
    def last_first(request: httpx.Request) -> httpx.Response:
        count = len(json.loads(request.content)["documents"])
        return httpx.Response(
            200, json={"results": [{"index": index, "relevance_score": index} for index in range(count)]}
        )

    async with jina(httpx.MockTransport(last_first)) as reranker, open_memory(pool, embedder()) as plain:
        await plain.add_messages(ANA, conversation(LINES))
        await all_embedded(plain)
        fused = ids(await plain.search(ANA, "zebra lion", strategy="retention", limit=50))
        async with open_memory(pool, embedder(), reranker=reranker) as memory:
            result = await memory.search(ANA, "zebra lion", strategy="retention", limit=50)
            # Other strategies than those of support and retention are not reranked.
            assert ids(await memory.search(ANA, "zebra lion", limit=50)) == ids(
                await plain.search(ANA, "zebra lion", limit=50)
            )
    assert ids(result) == fused[::-1]
    assert result.hits[0].ranks[-1].retriever == "rerank"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, text="no"),
        httpx.Response(200, json={"results": [{"index": 7, "relevance_score": 1}]}),
    ],
)
async def test_a_failed_reranker_leaves_the_fused_order_and_is_reported(
    pool: Pool, answer: httpx.Response
) -> None:
    async with (
        jina(httpx.MockTransport(lambda _: answer)) as reranker,
        open_memory(pool, embedder(), reranker=reranker) as memory,
    ):
        await memory.add_messages(ANA, [make_message("A zebra."), make_message("Two zebras.", minute=1)])
        result = await memory.search(ANA, "zebra", strategy="retention")
    assert set(ids(result)) == {"s1-0", "s1-1"}
    assert any(reason.startswith("rerank: The reranker 'jina:test'") for reason in result.degraded)


async def test_the_settings_choose_the_reranker() -> None:
    def settings(key: str | None) -> Settings:
        rerank = RerankSettings(api_key=SecretStr(key) if key else None)
        return Settings.load(features=FeatureSettings(reranking=True), rerank=rerank)

    async with open_reranker(Settings.load(features=FeatureSettings(reranking=False))) as none:
        assert none is None
    async with open_reranker(settings(None)) as local:
        assert isinstance(local, LocalReranker)
    async with open_reranker(settings("k")) as remote:
        assert isinstance(remote, JinaReranker)
