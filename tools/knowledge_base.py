"""The help articles: an index in memory that follows the CRM, and the one way to find articles.

The articles are kept as the memory of a contact of its own, one message for each article, so that indexing,
embedding, retrievers and fusion are memory's. The CRM that ``CRM_API_BASE`` names has one knowledge base for
all tenants, and so has the index.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from core.errors import CrmRefused, MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import STRATEGIES, Hit, Memory, Message, NoMemory, Scope
from core.texts import make_storable
from tools.crm.client import CrmClient
from tools.crm.models import Article, ArticleRevision

log = get_logger(__name__)

# No credential can name this tenant: names of tenants have no asterisk.
KNOWLEDGE: Final = Scope(tenant="*", contact_id="articles")
# An answer waits for a search in the index no longer than this, and then asks the CRM.
SEARCH_SECONDS = 1.5
MAX_ARTICLES: Final = 20_000
# A longer article is shown by its best passage.
MAX_BODY_CHARACTERS: Final = 2_000
# Articles kept in this process, 13 MB at most.
_MAX_LOADED: Final = 128
# What memory takes as an id and as a text.
_MAX_ID_CHARACTERS: Final = 200
_MAX_TEXT_CHARACTERS: Final = 100_000
# Articles that are written together; more would keep messages waiting.
_WRITE_BATCH: Final = 100
# A CRM that has no list of its articles answers with one of these.
_NOT_OFFERED: Final = frozenset({404, 405, 501})
# The constant k of reciprocal rank fusion (Cormack et al. 2009).
_RANK_CONSTANT: Final = 60


@dataclass(frozen=True, slots=True)
class FoundArticle:
    """An article, and its passage that fits the question best.

    Attributes:
        article: The article.
        passage: Of a longer article, the part that fits best.
        found_by: What it has in common with the question, at least: meaning, or only words.
    """

    article: Article
    passage: str
    found_by: Literal["meaning", "words"]

    @property
    def excerpt(self) -> str:
        """What a model is shown: the body, or the passage of a longer article."""
        body = self.article.body
        return body if len(body) <= MAX_BODY_CHARACTERS else self.passage[:MAX_BODY_CHARACTERS]


class KnowledgeBase:
    """Finds help articles: in the index, or with the CRM's own search until the index is complete.

    Args:
        crm: The CRM.
        memory: Holds the index.
    """

    def __init__(self, crm: CrmClient, memory: Memory | None = None) -> None:
        self._crm = crm
        self._memory = memory or NoMemory()
        self._loaded: OrderedDict[tuple[str, datetime], Message] = OrderedDict()

    async def find(self, query: str, *, limit: int = 3) -> list[FoundArticle]:
        """Return the articles that fit a question best, whatever their language, best first.

        Raises:
            CrmError: The index cannot be used, and neither can the CRM.
        """
        try:
            async with asyncio.timeout(SEARCH_SECONDS):
                if found := await self._search_index(query, limit):
                    return found
        except (MemoryUnavailable, MemoryRefused, TimeoutError) as error:
            log.debug("article_index_not_used", reason=str(error) or "no answer in time")
        articles = rank_articles((await self._crm.search_knowledge_base(query)).articles, query)
        return [FoundArticle(article, article.body, "words") for article in articles[:limit]]

    async def _search_index(self, query: str, limit: int) -> list[FoundArticle]:
        result = await self._memory.search(KNOWLEDGE, query, strategy="knowledge", limit=limit)
        if any(reason.startswith("vector:") for reason in result.degraded):
            # While only some articles have vectors, those would be found for every question.
            return []
        hits = result.hits[:limit]
        messages = await asyncio.gather(*map(self._load, hits))
        return [_build_article(hit, message) for hit, message in zip(hits, messages, strict=True) if message]

    async def _load(self, hit: Hit) -> Message | None:
        """Return the article that a passage is of; ``None``: it was removed meanwhile."""
        key = (hit.session_id, hit.at)
        loaded = self._loaded.pop(key, None)
        # A CRM may change an article and leave its time.
        if loaded is None or hit.text not in loaded.text:
            loaded = next(
                iter(await self._memory.recent(KNOWLEDGE, session_id=hit.session_id, limit=1)), None
            )
        if loaded:
            self._loaded[key] = loaded
            if len(self._loaded) > _MAX_LOADED:
                self._loaded.popitem(last=False)
        return loaded


def _build_article(hit: Hit, message: Message) -> FoundArticle:
    title, _, body = message.text.partition("\n\n")
    article = Article(id=message.id, title=title, body=body)
    return FoundArticle(article, hit.text.removeprefix(f"{title}\n\n"), "meaning")


def rank_articles(articles: Sequence[Article], query: str) -> list[Article]:
    """Fuse the CRM's order with the order by shared numbers and codes, by reciprocal rank.

    The weights are those of the strategy ``knowledge``, so that "Error 500" comes before "Error 404".
    """
    weights = STRATEGIES["knowledge"]
    codes = {word for word in query.lower().split() if any(character.isdigit() for character in word)}

    def count_codes(article: Article) -> int:
        return sum(code in f"{article.title} {article.body}".lower() for code in codes)

    counts = [count_codes(article) for article in articles]
    by_code = sorted(range(len(articles)), key=lambda position: (-counts[position], position))
    code_rank = {position: rank for rank, position in enumerate(by_code) if counts[position]}

    def score(position: int) -> float:
        by_identifier = (
            weights.trigram / (_RANK_CONSTANT + code_rank[position]) if position in code_rank else 0.0
        )
        return weights.keyword / (_RANK_CONSTANT + position) + by_identifier

    order = sorted(range(len(articles)), key=lambda position: (-score(position), position))
    return [articles[position] for position in order]


class ArticleSync:
    """Keeps the index as the CRM's knowledge base is.

    The first pass lists all articles, later ones those that changed since. The CRM also says how many
    articles there are; if the index has another number, all are listed again and what is missing is removed.

    Args:
        crm: The CRM.
        memory: Holds the index.
    """

    def __init__(self, crm: CrmClient, memory: Memory) -> None:
        self._crm = crm
        self._memory = memory
        self._since: datetime | None = None

    async def run_pass(self) -> int:
        """Bring the index up to date. A CRM that does not list its articles is left alone.

        Returns:
            How many articles were written or removed.

        Raises:
            CrmError: The CRM cannot be read.
            MemoryUnavailable: The index cannot be written; the next pass repeats what is missing.
        """
        try:
            listed, total = await self._list(self._since)
            stored = await self._load()
            is_complete = self._since is None
            if not is_complete and len(stored.keys() | listed.keys()) != total:
                listed, _ = await self._list(None)
                is_complete = True
        except CrmRefused as error:
            if error.crm_status not in _NOT_OFFERED:
                raise
            log.info("articles_not_listed_by_crm", crm_status=error.crm_status)
            return 0
        changed = [message for id_, message in listed.items() if stored.get(id_) != message]
        removed = stored.keys() - listed.keys() if is_complete else set[str]()
        await self._write(changed, {*removed, *(message.id for message in changed if message.id in stored)})
        self._since = max((message.at for message in listed.values()), default=self._since)
        if changed or removed:
            log.info("articles_synchronised", changed=len(changed), removed=len(removed))
        return len(changed) + len(removed)

    async def _list(self, since: datetime | None) -> tuple[Mapping[str, Message], int]:
        messages: dict[str, Message] = {}
        after, total = "", 0
        while len(messages) < MAX_ARTICLES:
            page = await self._crm.list_articles(updated_since=since, after=after)
            messages |= {article.id: build_message(article) for article in page.articles}
            total = page.total
            # A CRM that repeats a page would be read for ever.
            if not page.next or page.next == after:
                break
            after = page.next
        return messages, total

    async def _load(self) -> Mapping[str, Message]:
        return {message.id: message for message in await self._memory.recent(KNOWLEDGE, limit=MAX_ARTICLES)}

    async def _write(self, changed: Sequence[Message], outdated: Collection[str]) -> None:
        for id_ in sorted(outdated):
            await self._memory.forget(KNOWLEDGE, session_id=id_)
        for start in range(0, len(changed), _WRITE_BATCH):
            await self._memory.add_messages(KNOWLEDGE, changed[start : start + _WRITE_BATCH])


def build_message(article: ArticleRevision) -> Message:
    """Return an article as it is indexed: a title in one line, an empty line, the body."""
    title = " ".join(article.title.split())
    return Message(
        id=article.id[:_MAX_ID_CHARACTERS],
        role="note",
        text=make_storable(f"{title}\n\n{article.body.strip()}")[:_MAX_TEXT_CHARACTERS],
        at=article.updated_at.astimezone(UTC),
        session_id=article.id[:_MAX_ID_CHARACTERS],
    )
