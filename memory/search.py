"""A search: the query's vector, one SQL statement for all legs, fusion, and the newest messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final, get_args

from psycopg import AsyncRawCursor
from psycopg.rows import DictRow, dict_row

from core.embeddings import Embedder
from core.errors import EmbeddingError, MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Hit, RetrieverRank, Scope, SearchResult, Strategy
from core.memory.strategies import Retriever
from core.memory.values import HitKind
from core.packing import format_statement, is_summary_id
from core.postgres import Connection, Pool
from core.texts import make_storable
from memory.database import MISSING_TRIGRAMS, MISSING_VECTOR, Extensions
from memory.indexer import Model, halfvec
from memory.legs import (
    AFTER,
    BEFORE,
    COMMON_NAME,
    FACTS_SQL,
    FIELD_WEIGHTS,
    K1,
    MODES_SQL,
    MOST_FACTS,
    SAME_NAME,
    TEXTS_SQL,
    B,
    Statement,
    statement,
)
from memory.messages import END_OF_TIME, check_scope, to_utc
from memory.ranking import age_factor, fuse_ranks, sort_by_score
from memory.rerankers import Candidate, Reranker
from memory.texts import add_unaccented_words, extract_identifiers

log = get_logger(__name__)

MAX_LIMIT: Final = 100
# Longer questions are cut: what is asked is at the beginning.
QUERY_CHARACTERS: Final = 1_000
MAX_NEEDLES: Final = 8
RERANKED: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDeps:
    """What a search needs.

    Attributes:
        pool: The service's pool.
        extensions: What the server has.
        embedder: For retrieval.
        model: The embedder's; None where there is no pgvector.
        reranker: None where reranking is off.
    """

    pool: Pool
    extensions: Extensions
    embedder: Embedder
    model: Model | None
    reranker: Reranker | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """What the legs name: units by their numbers, facts by the negatives of theirs.

    Attributes:
        ranks: By leg the rank of each unit.
        scores: By leg the scores, by rank.
        messages: Of each unit its message's number.
        times: And its time.
        waiting: How many units wait for a vector.
    """

    ranks: Mapping[str, Mapping[int, int]]
    scores: Mapping[str, Sequence[float]]
    messages: Mapping[int, int]
    times: Mapping[int, datetime]
    waiting: int

    def legs(self, unit: int) -> tuple[RetrieverRank, ...]:
        """The legs that name it."""
        return tuple(
            RetrieverRank(leg, rank, self.scores[leg][rank - 1])
            for leg, ranks in sorted(self.ranks.items())
            if (rank := ranks.get(unit))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What to show: the best, best first, and the newest units, newest first; and the fused scores."""

    best: Sequence[int]
    newest: Sequence[int]
    scores: Mapping[int, float]


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
    """What the contact's memory has on a question; see :class:`core.memory.Memory`.

    Args:
        deps: What it needs.
        scope: Whose memory.
        query: The question.
        strategy: Name of the weights, for the result.
        weights: How the legs are weighed.
        limit: Most hits, besides the newest messages.
        as_of: Nothing said later.

    Raises:
        MemoryRefused: The scope names nobody, the limit is none, or ``as_of`` has no time zone.
    """
    _check(scope, limit, as_of)
    asked = make_storable(query)[:QUERY_CHARACTERS].strip()
    # Before a connection is taken: none waits for a model.
    vector, degraded = await _vector(deps, asked, weights)
    needles, missing = _needles(deps, asked, weights)
    degraded += missing
    legs = tuple(leg for leg in get_args(Retriever) if _is_asked(leg, asked, weights, vector, needles))
    parameters = {
        **_parameters(scope, weights, as_of),
        "words": add_unaccented_words(asked),
        "needles": needles,
        **({"vector": halfvec(vector), "model": deps.model.id} if vector and deps.model else {}),
    }
    model = deps.model or Model(id=0, name=deps.embedder.model, dimensions=deps.embedder.dimensions)
    asking = statement(legs, model=model.id, dimensions=model.dimensions)
    reranker = deps.reranker if weights.rerank else None
    async with deps.pool.connection() as connection:
        named = await _asked(connection, asking, parameters)
        chosen = _chosen(
            named, weights, as_of or datetime.now(UTC), max(limit, RERANKED) if reranker else limit
        )
        hits = await _hits(connection, named, chosen)
    if named.waiting:
        degraded.append(f"vector: {named.waiting} parts of this contact's messages are not embedded yet")
    best = [hits[each] for each in chosen.best if each in hits]
    if reranker:
        best, failed = await _reranked(reranker, asked, best)
        degraded += failed
    best = best[:limit]
    known = {(hit.kind, hit.id) for hit in best}
    newest = (hits[unit] for unit in chosen.newest if unit in hits)
    return SearchResult(
        hits=(*best, *(hit for hit in newest if (hit.kind, hit.id) not in known)),
        strategy=strategy,
        model=model.name,
        degraded=tuple(degraded),
    )


async def _asked(connection: Connection, asked: Statement, parameters: Mapping[str, object]) -> _Named:
    """What the legs name, in one round trip with the modes the statement runs in."""
    # Raw: psycopg does not remember how it reads a statement this long, and reads it anew each time.
    cursor = AsyncRawCursor(connection, row_factory=dict_row)
    async with connection.pipeline(), connection.transaction():
        await connection.execute(MODES_SQL)
        await cursor.execute(asked.sql, [parameters[name] for name in asked.parameters])
    rows = await cursor.fetchall()
    by_leg = {row["leg"]: row for row in rows if row["units"]}
    found = by_leg.values()
    units = [unit for row in found for unit in row["units"]]
    return _Named(
        ranks={leg: {unit: rank for rank, unit in enumerate(row["units"], 1)} for leg, row in by_leg.items()},
        scores={leg: row["scores"] for leg, row in by_leg.items()},
        messages=dict(zip(units, chain.from_iterable(row["messages"] for row in found), strict=True)),
        times=dict(zip(units, chain.from_iterable(row["times"] for row in found), strict=True)),
        waiting=rows[0]["waiting"],
    )


async def _hits(connection: Connection, named: _Named, chosen: _Chosen) -> dict[int, Hit]:
    """What is chosen, with its texts; what was forgotten since is not among it."""
    shown = [*dict.fromkeys([*chosen.best, *chosen.newest])]
    units, facts = [each for each in shown if each > 0], [-each for each in shown if each < 0]
    found: dict[int, tuple[HitKind, str, str, str]] = {}
    if units:
        rows = await (await connection.execute(TEXTS_SQL, (units,))).fetchall()
        found |= {row["unit"]: _message(row) for row in rows}
    if facts:
        rows = await (await connection.execute(FACTS_SQL, (facts,))).fetchall()
        found |= {-row["id"]: _fact(row) for row in rows}
    return {
        each: Hit(
            kind=kind,
            id=identity,
            text=text,
            at=to_utc(named.times[each]),
            session_id=session_id,
            score=chosen.scores.get(each, 0.0),
            ranks=named.legs(each),
        )
        for each, (kind, identity, text, session_id) in found.items()
    }


def _message(row: DictRow) -> tuple[HitKind, str, str, str]:
    kind: HitKind = "summary" if is_summary_id(row["message"]) else "message"
    return kind, row["message"], row["text"], row["session_id"]


def _fact(row: DictRow) -> tuple[HitKind, str, str, str]:
    text = format_statement(row["subject"], row["predicate"], row["scope_key"], row["object"])
    return "fact", str(row["id"]), text, ""


def _check(scope: Scope, limit: int, as_of: datetime | None) -> None:
    check_scope(scope)
    if not 1 <= limit <= MAX_LIMIT:
        raise MemoryRefused(f"limit must be from 1 to {MAX_LIMIT}")
    if as_of is not None and as_of.tzinfo is None:
        raise MemoryRefused("as_of must say in which time zone it is")


async def _vector(deps: SearchDeps, asked: str, weights: Strategy) -> tuple[list[float] | None, list[str]]:
    if not asked or weights.vector <= 0:
        return None, []
    if deps.model is None:
        return None, [f"vector: {MISSING_VECTOR}"]
    try:
        return await deps.embedder.embed_query(asked), []
    except EmbeddingError as fault:
        log.warning("memory_vector_leg_failed", reason=fault.message)
        return None, [f"vector: {fault.message}"]


def _needles(deps: SearchDeps, asked: str, weights: Strategy) -> tuple[list[str], list[str]]:
    needles = list(dict.fromkeys(extract_identifiers(asked)))[:MAX_NEEDLES] if weights.trigram > 0 else []
    if needles and not deps.extensions.trigrams:
        return [], [f"trigram: {MISSING_TRIGRAMS}"]
    return needles, []


def _is_asked(
    leg: Retriever, asked: str, weights: Strategy, vector: list[float] | None, needles: Sequence[str]
) -> bool:
    """Whether a leg has something to look for; the newest messages are always looked up."""
    if leg == "recent":
        return True
    ready = {
        "keyword": bool(asked),
        "vector": vector is not None,
        "trigram": bool(needles),
        "graph": bool(asked),
        "fact": bool(asked),
    }
    return ready[leg] and weights.weight(leg) > 0


def _parameters(scope: Scope, weights: Strategy, as_of: datetime | None) -> dict[str, object]:
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "as_of": as_of or END_OF_TIME,
        "moment": as_of or datetime.now(UTC),
        "retriever_limit": weights.retriever_limit,
        "fact_limit": MOST_FACTS,
        "baseline": weights.baseline,
        "hops": weights.hops,
        "fields": FIELD_WEIGHTS,
        "k1": K1,
        "b": B,
        "after": AFTER,
        "before": BEFORE,
        "same_name": SAME_NAME,
        "common_name": COMMON_NAME,
    }


def _chosen(named: _Named, weights: Strategy, now: datetime, most: int) -> _Chosen:
    """The ``most`` best messages, and those that are merely new."""
    scores = fuse_ranks(named.ranks, {leg: weights.weight(leg) for leg in get_args(Retriever)})
    if weights.half_life_days is not None:
        scores = {
            # What holds is not old, however long it has held.
            each: score
            if each < 0
            else score * age_factor(named.times[each], now, weights.half_life_days, weights.age_share)
            for each, score in scores.items()
        }
    best: dict[int, int] = {}
    for unit in sort_by_score(scores, {unit: unit for unit in scores}):
        # Of a long message the part that was found first speaks for it.
        best.setdefault(named.messages[unit], unit)
        if len(best) == most:
            break
    return _Chosen(best=tuple(best.values()), newest=tuple(named.ranks.get("recent", ())), scores=scores)


async def _reranked(reranker: Reranker, asked: str, best: list[Hit]) -> tuple[list[Hit], list[str]]:
    head, tail = best[:RERANKED], best[RERANKED:]
    if len(head) < 2 or not asked:  # noqa: PLR2004  # one has an order
        return best, []
    candidates = [Candidate(text=hit.text, at=hit.at, score=hit.score) for hit in head]
    try:
        places = await reranker.rerank(asked, candidates)
    except MemoryUnavailable as fault:
        log.warning("memory_rerank_failed", reranker=reranker.name, reason=fault.message)
        return best, [f"rerank: {fault.message}"]
    again = [
        replace(
            head[place.index], ranks=(*head[place.index].ranks, RetrieverRank("rerank", rank, place.score))
        )
        for rank, place in enumerate(places, start=1)
    ]
    return [*again, *tail], []
