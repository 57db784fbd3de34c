"""Evaluate how well the development CRM's help articles are found, with 60 questions in two languages.

A question counts as answered if one of its articles is among the first three. Half of the questions are in
English, half in Portuguese, and many of the articles exist in one language only.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Final, TypedDict

import httpx
from rich.console import Console

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.embeddings import build_embedder
from core.memory import STRATEGIES, Strategy
from core.settings import CrmSettings, DatabaseSettings, Settings
from dev_crm.app import create_crm
from dev_crm.migrations import migrate
from memory import search
from memory.database import open_extensions
from memory.embedded import EmbeddedMemory, open_memory
from memory.indexer import activate_model
from memory.rerankers import LocalReranker
from memory.search import SearchDeps
from tools.crm.client import CrmClient, create_http_client
from tools.knowledge_base import KNOWLEDGE, ArticleSync, rank_articles

QUESTIONS: Final = Path(__file__).with_name("article_questions.json")
CUT: Final = 3
MOST: Final = 10

Find = Callable[[str], Awaitable[list[str]]]


class Question(TypedDict):
    """A question, and the articles that answer it."""

    language: str
    question: str
    articles: list[str]


def load_questions() -> list[Question]:
    """Return the questions."""
    questions: list[Question] = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    return questions


async def evaluate(console: Console) -> None:
    """Measure on a database of its own, and print the table."""
    settings = Settings.load()
    embedder = build_embedder(settings, "retrieval")
    with tempfile.TemporaryDirectory(prefix="ventros-eval-") as place:
        async with (
            embedded_postgres_server(Path(place)) as url,
            open_pool(url, DatabaseSettings(pool_min_size=1)) as pool,
            open_memory(pool, embedder) as memory,
        ):
            await migrate(pool)
            crm_settings = CrmSettings()
            transport = httpx.ASGITransport(create_crm(pool, crm_settings.api_key))
            async with create_http_client(crm_settings, "http://crm", transport=transport) as http:
                crm = CrmClient(http, crm_settings)
                written, seconds = await _build_index(crm, memory)
                extensions = await open_extensions(pool)
                model = await activate_model(pool, embedder)
                deps = SearchDeps(pool=pool, extensions=extensions, embedder=embedder, model=model)
                rows = [await _measure("the CRM's own search", _search_crm(crm))]
                for name, weights, used in _variants(deps):
                    rows.append(await _measure(name, _search_index(used, weights)))
    lines = (
        f"Help articles: {written} articles, {len(load_questions())} questions",
        f"{embedder.model}; indexed and embedded in {seconds:.1f} s",
        "",
        "| recall@3, % | all | English | Portuguese | mean reciprocal rank | p50 ms |",
        "|---|---|---|---|---|---|",
        *rows,
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    await embedder.aclose()


async def _build_index(crm: CrmClient, memory: EmbeddedMemory) -> tuple[int, float]:
    start = time.perf_counter()
    written = await ArticleSync(crm, memory).run_pass()
    while (await memory.progress()).waiting:  # noqa: ASYNC110 - the indexer works in the background
        await asyncio.sleep(0.05)
    return written, time.perf_counter() - start


def _variants(deps: SearchDeps) -> list[tuple[str, Strategy, SearchDeps]]:
    knowledge = STRATEGIES["knowledge"]
    reranking = replace(deps, reranker=LocalReranker())
    return [
        ("keyword alone", replace(knowledge, vector=0, trigram=0), deps),
        (
            "vector alone, languages not balanced",
            replace(knowledge, keyword=0, trigram=0, balance_languages=0),
            deps,
        ),
        ("vector alone", replace(knowledge, keyword=0, trigram=0), deps),
        ("fusion, languages not balanced", replace(knowledge, balance_languages=0), deps),
        ("fusion (knowledge)", knowledge, deps),
        ("fusion, then MMR", replace(knowledge, rerank=True), reranking),
    ]


def _search_crm(crm: CrmClient) -> Find:
    async def find(question: str) -> list[str]:
        articles = (await crm.search_knowledge_base(question)).articles
        return [article.id for article in rank_articles(articles, question)]

    return find


def _search_index(deps: SearchDeps, weights: Strategy) -> Find:
    async def find(question: str) -> list[str]:
        result = await search.search(
            deps, KNOWLEDGE, question, strategy="knowledge", weights=weights, limit=MOST
        )
        return [hit.id for hit in result.hits]

    return find


async def _measure(name: str, find: Find) -> str:
    """Return a row of the table."""
    ranks: dict[str, list[float]] = {}
    took: list[float] = []
    for asked in load_questions():
        start = time.perf_counter()
        found = await find(asked["question"])
        took.append(1_000 * (time.perf_counter() - start))
        places = [found.index(id_) for id_ in asked["articles"] if id_ in found]
        ranks.setdefault(asked["language"], []).append(1 / (1 + min(places)) if places else 0.0)
    every = [rank for each in ranks.values() for rank in each]
    cells = " | ".join(f"{_compute_recall(each):.1f}" for each in (every, ranks["en"], ranks["pt"]))
    return f"| {name} | {cells} | {fmean(every):.2f} | {sorted(took)[len(took) // 2]:.0f} |"


def _compute_recall(reciprocal_ranks: Sequence[float]) -> float:
    return 100 * fmean(rank >= 1 / CUT for rank in reciprocal_ranks)
