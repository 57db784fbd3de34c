"""Evaluate the recall of the memory's search on LoCoMo (Maharana et al. 2024, arXiv:2402.17753).

Each conversation is the memory of one contact, each turn a message. A question's recall@k is the share of
its evidence that is among the first k messages. The data (CC BY-NC) is not part of the product.
"""

import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.data import LocomoSample, locomo
from benchmarks.recall import CUTS, Ranked, Recall, leave_one_out, percentile, recall, table
from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import open_pool
from core.embeddings import build_embedder
from core.memory import STRATEGIES, Message, Scope, Strategy
from core.memory.strategies import Retriever
from core.settings import DatabaseSettings, Settings
from memory import indexer, search
from memory.database import migrate, open_extensions
from memory.indexer import Indexer
from memory.messages import add_messages
from memory.rerankers import LocalReranker, Reranker
from memory.search import SearchDeps

RETRIEVERS: Final[tuple[Retriever, ...]] = ("keyword", "vector", "trigram")
MOST: Final = max(CUTS)
_EVIDENCE: Final = re.compile(r"D\d+:\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a conversation, and the messages that answer it."""

    conversation: str
    text: str
    category: int
    evidence: frozenset[str]


def messages_of(sample: LocomoSample) -> list[Message]:
    """Return the turns as messages, in order: a second apart within a session, images as their captions."""
    conversation = sample["conversation"]
    found = []
    for number in sorted(int(key.split("_")[1]) for key in conversation if re.fullmatch(r"session_\d+", key)):
        stamp, turns = conversation[f"session_{number}_date_time"], conversation[f"session_{number}"]
        start = datetime.strptime(str(stamp), "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for place, turn in enumerate(turns if isinstance(turns, list) else []):
            caption = turn.get("blip_caption")
            picture = f" [picture: {caption}]" if caption else ""
            found.append(
                Message(
                    id=turn["dia_id"],
                    role="customer" if turn["speaker"] == conversation["speaker_a"] else "human",
                    text=f"{turn['speaker']}: {turn['text']}{picture}",
                    at=start + timedelta(seconds=place),
                    session_id=f"session_{number}",
                )
            )
    return found


def questions_of(sample: LocomoSample) -> list[Question]:
    """Return the questions that name evidence."""
    found = []
    for asked in sample["qa"]:
        evidence = frozenset(_EVIDENCE.findall(" ".join(asked["evidence"])))
        if evidence:
            found.append(
                Question(
                    conversation=sample["sample_id"],
                    text=asked["question"],
                    category=asked["category"],
                    evidence=evidence,
                )
            )
    return found


async def store(deps: SearchDeps, samples: Iterable[LocomoSample]) -> int:
    """Add every conversation to the memory, with its vectors."""
    count = 0
    for sample in samples:
        count += await add_messages(deps.pool, Scope("locomo", sample["sample_id"]), messages_of(sample))
    if deps.model:
        await Indexer(deps.pool, deps.embedder, deps.model).drain()
    return count


async def ranked(
    deps: SearchDeps, questions: Sequence[Question], weights: Strategy
) -> tuple[list[Ranked], list[float]]:
    """Search for every question; return the rankings and the milliseconds that each search took."""
    found, took = [], []
    for question in questions:
        start = time.perf_counter()
        result = await search.search(
            deps,
            Scope("locomo", question.conversation),
            question.text,
            strategy="general",
            weights=weights,
            limit=search.MAX_LIMIT,
        )
        took.append(1_000 * (time.perf_counter() - start))
        found.append(
            Ranked(
                group=question.conversation,
                answerable=question.category <= 4,  # noqa: PLR2004  # 5 is unanswerable
                evidence=question.evidence,
                ids=tuple(hit.id for hit in result.hits if hit.score > 0),
            )
        )
    return found, took


def only(retriever: Retriever) -> Strategy:
    """Return a strategy that uses one retriever only."""
    return replace(
        STRATEGIES["general"],
        keyword=float(retriever == "keyword"),
        vector=float(retriever == "vector"),
        trigram=float(retriever == "trigram"),
        graph=float(retriever == "graph"),
        recent=float(retriever == "recent"),
        rerank=False,
    )


async def tables(deps: SearchDeps, questions: Sequence[Question], reranker: Reranker) -> str:
    """Format the tables."""
    rows: list[tuple[str, Recall, list[float]]] = []
    retrievers: dict[str, list[Ranked]] = {}
    for retriever in RETRIEVERS:
        retrievers[retriever], took = await ranked(deps, questions, only(retriever))
        rows.append((f"{retriever} alone", recall(retrievers[retriever]), took))
    general = STRATEGIES["general"]
    found, took = await ranked(deps, questions, replace(general, rerank=False))
    rows.append(("fusion (general)", recall(found), took))
    again, took = await ranked(replace(deps, reranker=reranker), questions, replace(general, rerank=True))
    rows.append((f"fusion, then {reranker.name}", recall(again), took))
    chosen, unseen = leave_one_out(retrievers)
    rows.append(("fusion, fitted on three, tested on the fourth", unseen, []))
    lines = [table(rows), "", "Weights fitted without the conversation they are tested on:"]
    lines += [f"- {group}: {weights}" for group, weights in chosen.items()]
    lines += ["", "Conversation by conversation, fusion (general):", ""]
    groups = sorted({each.group for each in found})
    lines.append(table([(g, recall([each for each in found if each.group == g]), []) for g in groups]))
    lines += [
        "",
        f"Query: p50 {percentile(took, 50):.0f} ms, p95 {percentile(took, 95):.0f} ms, embedding included.",
    ]
    return "\n".join(lines)


async def evaluate(folder: Path, console: Console) -> None:
    """Measure on a database of its own, and print the tables.

    Raises:
        DataMissing: The folder has no ``locomo-dev.json``.
    """
    samples = locomo(folder)
    questions = [question for sample in samples for question in questions_of(sample)]
    embedder = build_embedder(Settings.load(), "retrieval")
    with tempfile.TemporaryDirectory(prefix="ventros-eval-") as place:
        async with (
            embedded_postgres_server(Path(place)) as url,
            open_pool(url, DatabaseSettings(pool_min_size=1)) as pool,
        ):
            await migrate(pool)
            extensions = await open_extensions(pool)
            model = await indexer.activate_model(pool, embedder)
            deps = SearchDeps(pool=pool, extensions=extensions, embedder=embedder, model=model)
            start = time.perf_counter()
            count = await store(deps, samples)
            lines = (
                f"Memory on LoCoMo: {count} messages in {len(samples)} conversations, {len(questions)} asked",
                f"{embedder.model}; stored and embedded in {time.perf_counter() - start:.0f} s",
                "",
                await tables(deps, questions, LocalReranker()),
            )
            # As Markdown, so that it can be pasted; rich would wrap the tables.
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    await embedder.aclose()
