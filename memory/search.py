"""Search: embed the question, run the retrievers in one SQL statement, rank, rerank, and load the texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final, NamedTuple, get_args

from psycopg import AsyncRawCursor
from psycopg.rows import DictRow, dict_row

from core.embeddings import Embedder
from core.embeddings.embedder import shorten
from core.errors import EmbeddingError, MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Hit, RetrieverRank, Role, Scope, SearchResult, Strategy
from core.memory.strategies import Retriever
from core.memory.values import HitKind
from core.packing import format_statement, is_summary_id
from core.postgres import Connection, Pool
from core.texts import make_storable
from memory import retrievers
from memory.database import MISSING_TRIGRAMS, MISSING_VECTOR, Extensions
from memory.indexer import Model, format_halfvec
from memory.messages import END_OF_TIME, check_scope, to_utc
from memory.query_words import Period, RetrieverChoice, choose_retrievers
from memory.ranking import Candidates, Selection, select_candidates
from memory.rerankers import Candidate, Reranker
from memory.retrievers import FACTS_SQL, SESSION_SETTINGS_SQL, UNITS_SQL, Statement, build_statement
from memory.texts import add_unaccented_words, extract_identifiers

log = get_logger(__name__)

MAX_LIMIT: Final = 100
# Longer questions are shortened as for routing, so that a message is embedded once for both.
MAX_QUERY_CHARACTERS: Final = 1_000
MAX_IDENTIFIERS: Final = 8
# Hits that the reranker reorders.
MAX_RERANKED: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDeps:
    """What a search needs.

    Attributes:
        pool: The service's pool.
        extensions: The server's extensions.
        embedder: Embeds questions.
        model: The embedder's model; None without pgvector.
        reranker: None if reranking is off.
    """

    pool: Pool
    extensions: Extensions
    embedder: Embedder
    model: Model | None
    reranker: Reranker | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """A question, prepared for the retrievers.

    Attributes:
        text: The question.
        vector: Its vector; None if the vector retriever cannot be used.
        identifiers: The names and numbers that the trigram retriever looks for.
        period: The period that the temporal retriever looks in; None if the question names none.
        degraded: Retrievers that cannot be used, each with the reason.
    """

    text: str
    vector: Sequence[float] | None
    identifiers: Sequence[str]
    period: Period | None
    degraded: Sequence[str]


async def search(
    deps: SearchDeps,
    scope: Scope,
    query: str,
    *,
    strategy: str,
    weights: Strategy,
    limit: int,
    as_of: datetime | None = None,
) -> SearchResult:
    """Search a contact's memory; see :meth:`core.memory.Memory.search`.

    Args:
        deps: What the search needs.
        scope: Whose memory.
        query: The question.
        strategy: The name of the weights, for the result.
        weights: How the retrievers are weighed.
        limit: The most hits, besides the newest messages.
        as_of: Ignore what is newer.

    Raises:
        MemoryRefused: The scope is empty, the limit is out of range, or ``as_of`` has no time zone.
    """
    _check(scope, limit, as_of)
    now = as_of or datetime.now(UTC)
    choice = choose_retrievers(query, weights, now)
    weights = choice.weights
    # The question is embedded before a connection is borrowed, so that no connection waits for a model.
    question = await _prepare_query(deps, query, choice)
    degraded = list(question.degraded)
    statement, parameters = _build_statement(deps, question, scope, weights, as_of)
    reranker = deps.reranker if weights.rerank else None
    async with deps.pool.connection() as connection:
        candidates = await _retrieve(connection, statement, parameters)
        selection = select_candidates(
            candidates, weights, now, max(limit, MAX_RERANKED) if reranker else limit
        )
        hits = await _load_hits(connection, candidates, selection)
    if candidates.waiting:
        degraded.append(f"vector: {candidates.waiting} parts of this contact's messages are not embedded yet")
    best = [hits[identity] for identity in selection.best if identity in hits]
    if reranker:
        best, failures = await _rerank(reranker, question.text, best)
        degraded += failures
    best = best[:limit]
    shown = {(hit.kind, hit.id) for hit in best}
    newest = (hits[unit] for unit in selection.newest if unit in hits)
    return SearchResult(
        hits=(*best, *(hit for hit in newest if (hit.kind, hit.id) not in shown)),
        strategy=strategy,
        model=deps.embedder.model,
        degraded=tuple(degraded),
        reasons=choice.reasons,
    )


def _check(scope: Scope, limit: int, as_of: datetime | None) -> None:
    check_scope(scope)
    if not 1 <= limit <= MAX_LIMIT:
        raise MemoryRefused(f"limit must be from 1 to {MAX_LIMIT}")
    if as_of is not None and as_of.tzinfo is None:
        raise MemoryRefused("as_of must have a time zone")


async def _prepare_query(deps: SearchDeps, query: str, choice: RetrieverChoice) -> _Query:
    weights = choice.weights
    text = shorten(make_storable(query), MAX_QUERY_CHARACTERS).strip()
    degraded = []
    vector = None
    if text and weights.vector > 0:
        if deps.model is None:
            degraded.append(f"vector: {MISSING_VECTOR}")
        else:
            try:
                vector = await deps.embedder.embed_query(text)
            except EmbeddingError as error:
                log.warning("memory_query_not_embedded", reason=error.message)
                degraded.append(f"vector: {error.message}")
    identifiers: Sequence[str] = ()
    if weights.trigram > 0:
        identifiers = list(dict.fromkeys(extract_identifiers(text)))[:MAX_IDENTIFIERS]
    if identifiers and not deps.extensions.trigrams:
        identifiers = ()
        degraded.append(f"trigram: {MISSING_TRIGRAMS}")
    return _Query(text=text, vector=vector, identifiers=identifiers, period=choice.period, degraded=degraded)


def _build_statement(
    deps: SearchDeps, query: _Query, scope: Scope, weights: Strategy, as_of: datetime | None
) -> tuple[Statement, dict[str, object]]:
    model = deps.model or Model(id=0, name=deps.embedder.model, dimensions=deps.embedder.dimensions)
    used = tuple(name for name in get_args(Retriever) if _is_used(name, query, weights))
    parameters = _parameters(scope, weights, as_of) | {
        "words": add_unaccented_words(query.text),
        "needles": list(query.identifiers),
        "since": query.period.since if query.period else None,
        "until": query.period.until if query.period else None,
        "vector": format_halfvec(query.vector) if query.vector else None,
        "model": model.id,
    }
    return build_statement(used, model=model.id, dimensions=model.dimensions), parameters


async def _retrieve(
    connection: Connection, statement: Statement, parameters: Mapping[str, object]
) -> Candidates:
    """Run the retrievers, in one round trip together with the settings that the statement needs."""
    # A raw cursor, because psycopg does not cache how it parses a statement this long.
    cursor = AsyncRawCursor(connection, row_factory=dict_row)
    # What is sent up to the pipeline's end is one transaction, in which the settings hold; BEGIN and COMMIT
    # would take two more round trips of the driver each.
    async with connection.pipeline():
        await connection.execute(SESSION_SETTINGS_SQL)
        await cursor.execute(statement.sql, [parameters[name] for name in statement.parameters])
    rows = await cursor.fetchall()
    by_retriever = {row["retriever"]: row for row in rows if row["units"]}
    results = by_retriever.values()
    ids = [identity for row in results for identity in row["units"]]
    return Candidates(
        ranks={
            name: {identity: rank for rank, identity in enumerate(row["units"], 1)}
            for name, row in by_retriever.items()
        },
        scores={name: row["scores"] for name, row in by_retriever.items()},
        messages=dict(zip(ids, chain.from_iterable(row["messages"] for row in results), strict=True)),
        times=dict(zip(ids, chain.from_iterable(row["times"] for row in results), strict=True)),
        waiting=rows[0]["waiting"],
    )


def _is_used(retriever: Retriever, query: _Query, weights: Strategy) -> bool:
    """Return whether a retriever has a weight and something to look for; ``recent`` always runs."""
    if retriever == "recent":
        return True
    has_input = {
        "keyword": bool(query.text),
        "vector": query.vector is not None,
        "trigram": bool(query.identifiers),
        "graph": bool(query.text),
        "fact": bool(query.text),
        "temporal": query.period is not None,
    }
    return has_input[retriever] and weights.weight(retriever) > 0


def _parameters(scope: Scope, weights: Strategy, as_of: datetime | None) -> dict[str, object]:
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "as_of": as_of or END_OF_TIME,
        "moment": as_of or datetime.now(UTC),
        "retriever_limit": weights.retriever_limit,
        "fact_limit": retrievers.MAX_FACTS,
        "baseline": weights.baseline,
        "hops": weights.hops,
        "fields": retrievers.FIELD_WEIGHTS,
        "k1": retrievers.K1,
        "b": retrievers.B,
        "after": retrievers.NEXT_UNIT_WEIGHT,
        "before": retrievers.PREVIOUS_UNIT_WEIGHT,
        "balance": weights.balance_languages,
        "same_name": retrievers.MIN_NAME_SIMILARITY,
        "common_name": retrievers.COMMON_NAME_SHARE,
    }


async def _load_hits(connection: Connection, candidates: Candidates, selection: Selection) -> dict[int, Hit]:
    """Load the texts of the selected ids; an id that was forgotten meanwhile is left out."""
    ids = list(dict.fromkeys([*selection.best, *selection.newest]))
    units, facts = [each for each in ids if each > 0], [-each for each in ids if each < 0]
    contents: dict[int, _Content] = {}
    if units:
        rows = await (await connection.execute(UNITS_SQL, (units,))).fetchall()
        contents |= {row["unit"]: _unit_content(row) for row in rows}
    if facts:
        rows = await (await connection.execute(FACTS_SQL, (facts,))).fetchall()
        contents |= {-row["id"]: _fact_content(row) for row in rows}
    return {
        identity: Hit(
            kind=content.kind,
            id=content.id,
            text=content.text,
            at=to_utc(candidates.times[identity]),
            session_id=content.session_id,
            role=content.role,
            score=selection.scores.get(identity, 0.0),
            ranks=candidates.ranks_of(identity),
        )
        for identity, content in contents.items()
    }


class _Content(NamedTuple):
    kind: HitKind
    id: str
    text: str
    session_id: str = ""
    role: Role | None = None


def _unit_content(row: DictRow) -> _Content:
    kind: HitKind = "summary" if is_summary_id(row["message"]) else "message"
    return _Content(kind, row["message"], row["text"], row["session_id"], row["role"])


def _fact_content(row: DictRow) -> _Content:
    text = format_statement(row["subject"], row["predicate"], row["scope_key"], row["object"])
    return _Content("fact", str(row["id"]), text)


async def _rerank(reranker: Reranker, query: str, best: list[Hit]) -> tuple[list[Hit], list[str]]:
    """Rerank the best hits; return them in the fused order, with the reason, if the reranker fails."""
    head, tail = best[:MAX_RERANKED], best[MAX_RERANKED:]
    if len(head) < 2 or not query:  # noqa: PLR2004  # a single hit has no order
        return best, []
    candidates = [Candidate(text=hit.text, at=hit.at, score=hit.score) for hit in head]
    try:
        order = await reranker.rerank(query, candidates)
    except MemoryUnavailable as error:
        log.warning("memory_rerank_failed", reranker=reranker.name, reason=error.message)
        return best, [f"rerank: {error.message}"]
    reranked = [
        replace(
            head[place.index], ranks=(*head[place.index].ranks, RetrieverRank("rerank", rank, place.score))
        )
        for rank, place in enumerate(order, start=1)
    ]
    return [*reranked, *tail], []
