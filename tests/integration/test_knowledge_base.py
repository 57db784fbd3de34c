"""Help articles in the index: they follow the CRM, and the CRM's own search is the fallback."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from core.errors import CrmUnavailable, MemoryUnavailable
from core.memory import Scope
from core.postgres import Pool
from core.settings import CrmSettings
from dev_crm.app import create_crm
from memory.embedded import EmbeddedMemory, open_memory
from tests.support.memory import Model, all_embedded, embedder
from tests.support.memory_grpc import ScriptedMemory
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import running_service
from tools.crm.client import CrmClient, create_http_client
from tools.knowledge import search_knowledge_base_tool
from tools.knowledge_base import KNOWLEDGE, MAX_BODY_CHARACTERS, ArticleSync, KnowledgeBase

SETTINGS = CrmSettings(max_attempts=1)
PRICES = "kb-plans-prices"


@dataclass
class Index:
    """The development CRM, and the index that follows it."""

    pool: Pool
    crm: CrmClient
    memory: EmbeddedMemory
    model: Model
    sync: ArticleSync
    requests: list[httpx.Request]

    async def execute(self, sql: str) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(sql.encode())

    async def ids(self) -> set[str]:
        return {message.id for message in await self.memory.recent(KNOWLEDGE, limit=1_000)}

    async def find(self, query: str) -> list[str]:
        return [found.article.id for found in await KnowledgeBase(self.crm, self.memory).find(query)]


@pytest.fixture
async def index(pool: Pool) -> AsyncIterator[Index]:
    requests: list[httpx.Request] = []

    async def count(request: httpx.Request) -> None:
        requests.append(request)

    transport = httpx.ASGITransport(create_crm(pool, SETTINGS.api_key))
    model = Model()
    async with (
        create_http_client(SETTINGS, "http://crm", transport=transport) as http,
        open_memory(pool, embedder(model)) as memory,
    ):
        http.event_hooks["request"].append(count)
        crm = CrmClient(http, SETTINGS, first_pause=0)
        yield Index(pool, crm, memory, model, ArticleSync(crm, memory), requests)


async def test_the_index_follows_the_crm(index: Index) -> None:
    assert await index.sync.run_pass() == 41
    await all_embedded(index.memory)
    assert (await index.find("plans and prices"))[0] == PRICES
    embedded = index.model.embedded
    # A service that starts again, and a later pass, change nothing and embed nothing.
    assert await ArticleSync(index.crm, index.memory).run_pass() == 0
    assert await index.sync.run_pass() == 0
    assert "updated_since" in str(index.requests[-1].url)
    await index.execute(
        f"UPDATE crm.articles SET body = 'Blue whales cost extra.', updated_at = now() WHERE id = '{PRICES}'"
    )
    assert await index.sync.run_pass() == 1
    await all_embedded(index.memory)
    assert index.model.embedded == embedded + 1
    [found, *_] = await KnowledgeBase(index.crm, index.memory).find("blue whales")
    assert (found.article.id, found.article.body) == (PRICES, "Blue whales cost extra.")


async def test_a_deleted_article_vanishes(index: Index) -> None:
    await index.sync.run_pass()
    await index.execute("DELETE FROM crm.articles WHERE id = 'kb-lgpd'")
    assert await index.sync.run_pass() == 1
    assert "kb-lgpd" not in await index.ids()
    # One that goes while another comes, so that their number stays.
    await index.execute("DELETE FROM crm.articles WHERE id = 'kb-sso'")
    await index.execute(
        "INSERT INTO crm.articles (id, title, body, tags, language, updated_at)"
        " VALUES ('kb-new', 'Whales', 'Blue.', '[]', 'en', now())"
    )
    assert await index.sync.run_pass() == 2
    assert await index.ids() & {"kb-sso", "kb-new"} == {"kb-new"}
    await index.execute("DELETE FROM crm.articles")
    assert await index.sync.run_pass() == 40
    assert await index.ids() == set()


async def test_a_long_article_is_found_by_a_passage_and_shown_by_it(index: Index) -> None:
    await index.sync.run_pass()
    await all_embedded(index.memory)
    knowledge = KnowledgeBase(index.crm, index.memory)
    [found, *_] = await knowledge.find("Roll back the imports within 72 hours")
    assert found.article.id == "kb-migration-guide"
    assert "72 hours" in found.passage
    assert len(found.passage) < MAX_BODY_CHARACTERS < len(found.article.body)
    shown = await search_knowledge_base_tool(knowledge).ainvoke(
        {"query": "Roll back the imports within 72 hours"}
    )
    article = {"id": "kb-migration-guide", "title": "Migrating from another CRM, step by step"}
    assert shown[0] == {**article, "body": found.passage, "found_by": "meaning"}


async def test_without_an_index_the_crm_itself_is_searched(index: Index) -> None:
    # Nothing is indexed yet.
    assert (await index.find("boleto"))[0] == "kb-cobranca-boleto"
    down = ScriptedMemory(answers={"search": MemoryUnavailable("down")})
    for memory in (down, None):
        found = await KnowledgeBase(index.crm, memory).find("boleto")
        assert (found[0].article.id, found[0].found_by) == ("kb-cobranca-boleto", "words")
    assert await index.find("zzyzx") == []


@pytest.mark.parametrize(("status", "is_refused"), [(404, False), (503, True)])
async def test_a_crm_that_lists_no_articles_is_left_alone(
    index: Index, status: int, *, is_refused: bool
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    async with create_http_client(SETTINGS, "http://crm", transport=transport) as http:
        sync = ArticleSync(CrmClient(http, SETTINGS, first_pause=0), index.memory)
        if is_refused:
            with pytest.raises(CrmUnavailable):
                await sync.run_pass()
        else:
            assert await sync.run_pass() == 0


async def test_a_contact_named_like_the_index_sees_nothing_of_it(index: Index) -> None:
    await index.sync.run_pass()
    for tenant in ("default", "articles"):
        assert (await index.memory.search(Scope(tenant, KNOWLEDGE.contact_id), "prices")).hits == ()


async def test_the_service_synchronises_in_the_background(database_url: str) -> None:
    models = scripted_models(ScriptedChatModel())
    crm = CrmSettings(articles_sync_seconds=3_600)
    async with running_service(database_url, models, crm=crm) as running:
        memory = running.service.memory

        while len(await memory.recent(KNOWLEDGE, limit=1_000)) < 41:  # noqa: ASYNC110 - a background task
            await asyncio.sleep(0.01)
        health = (await running.http.get("/health")).json()
        assert health["tasks"]["article-sync"]["state"] == "running"
