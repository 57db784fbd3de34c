"""A search: the query's vector, one SQL statement for all legs, fusion, and the newest messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, get_args

from psycopg.rows import DictRow

from core.embeddings import Embedder
from core.errors import EmbeddingError, MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Hit, LegRank, Scope, SearchResult, Strategy
from core.memory.strategies import Leg
from core.postgres import Pool
from core.texts import storable
from memory.extensions import MISSING_TRIGRAMS, MISSING_VECTOR, Extensions
from memory.fusion import age_factor, best_first, fused
from memory.indexer import halfvec
from memory.legs import (
    AFTER,
    BEFORE,
    COMMON_NAME,
    FIELD_WEIGHTS,
    K1,
    MODES_SQL,
    SAME_NAME,
    B,
    statement,
)
from memory.messages import check_scope, utc
from memory.models import Model
from memory.rerank import Candidate, Reranker
from memory.texts import identifiers, searchable

log = get_logger(__name__)

MAX_LIMIT: Final = 100
# Longer questions are cut: what is asked is at the beginning.
QUERY_CHARACTERS: Final = 1_000
MAX_NEEDLES: Final = 8
RERANKED: Final = 50
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


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
    asked = storable(query)[:QUERY_CHARACTERS].strip()
    # Before a connection is taken: none waits for a model.
    vector, degraded = await _vector(deps, asked, weights)
    needles, missing = _needles(deps, asked, weights)
    degraded += missing
    legs = tuple(leg for leg in get_args(Leg) if _is_asked(leg, asked, weights, vector, needles))
    parameters = {
        **_parameters(scope, weights, as_of),
        "words": searchable(asked),
        "needles": needles,
        **({"vector": halfvec(vector), "model": deps.model.id} if vector and deps.model else {}),
    }
    model = deps.model or Model(id=0, name=deps.embedder.model, dimensions=deps.embedder.dimensions)
    sql = statement(legs, model=model.id, dimensions=model.dimensions)
    rows = await _rows(deps.pool, sql, parameters)
    if waiting := rows[0]["waiting"]:
        degraded.append(f"vector: {waiting} parts of this contact's messages are not embedded yet")
    best, newest = _ordered(rows, weights, as_of or datetime.now(UTC), max(limit, RERANKED))
    if weights.rerank and deps.reranker:
        best, failed = await _reranked(deps.reranker, asked, best)
        degraded += failed
    chosen = best[:limit]
    known = {hit.id for hit in chosen}
    return SearchResult(
        hits=(*chosen, *(hit for hit in newest if hit.id not in known)),
        strategy=strategy,
        model=model.name,
        degraded=tuple(degraded),
    )


async def _rows(pool: Pool, sql: bytes, parameters: Mapping[str, object]) -> list[DictRow]:
    """What the statement gives, in one round trip with the modes it runs in."""
    async with pool.connection() as connection:
        async with connection.pipeline(), connection.transaction():
            await connection.execute(MODES_SQL)
            cursor = await connection.execute(sql, parameters)
        return await cursor.fetchall()


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
    needles = list(dict.fromkeys(identifiers(asked)))[:MAX_NEEDLES] if weights.trigram > 0 else []
    if needles and not deps.extensions.trigrams:
        return [], [f"trigram: {MISSING_TRIGRAMS}"]
    return needles, []


def _is_asked(
    leg: Leg, asked: str, weights: Strategy, vector: list[float] | None, needles: Sequence[str]
) -> bool:
    """Whether a leg has something to look for; the newest messages are always looked up."""
    if leg == "recent":
        return True
    ready = {
        "keyword": bool(asked),
        "vector": vector is not None,
        "trigram": bool(needles),
        "graph": bool(asked),
    }
    return ready[leg] and weights.weight(leg) > 0


def _parameters(scope: Scope, weights: Strategy, as_of: datetime | None) -> dict[str, object]:
    return {
        "tenant": scope.tenant,
        "contact": scope.contact_id,
        "as_of": as_of or _END_OF_TIME,
        "moment": as_of or datetime.now(UTC),
        "leg_limit": weights.leg_limit,
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


def _ordered(
    rows: Sequence[DictRow], weights: Strategy, now: datetime, most: int
) -> tuple[list[Hit], list[Hit]]:
    """The ``most`` best messages, best first, and those that are merely new, newest first."""
    named = [row for row in rows if row["unit"] is not None]
    ranks: dict[str, dict[int, int]] = {}
    for row in named:
        for leg, rank in zip(row["legs"], row["ranks"], strict=True):
            ranks.setdefault(leg, {})[row["unit"]] = rank
    scores = fused(ranks, {leg: weights.weight(leg) for leg in get_args(Leg)})
    aged = {
        row["unit"]: scores[row["unit"]]
        * age_factor(row["at"], now, weights.half_life_days, weights.age_share)
        for row in named
        if row["unit"] in scores
    }
    by_unit = {row["unit"]: row for row in named}
    best: dict[str, Hit] = {}
    for unit in best_first(aged, {unit: unit for unit in aged}):
        # Of a long message the part that was found first speaks for it.
        if by_unit[unit]["message"] not in best:
            best[by_unit[unit]["message"]] = _hit(by_unit[unit], aged[unit])
        if len(best) == most:
            break
    recent = ranks.get("recent", {})
    newest = [_hit(by_unit[unit], aged.get(unit, 0.0)) for unit in sorted(recent, key=recent.__getitem__)]
    return list(best.values()), newest


def _hit(row: Mapping[str, object], score: float) -> Hit:
    legs = zip(row["legs"], row["ranks"], row["scores"], strict=True)  # type: ignore[call-overload]  # columns
    return Hit(
        kind="message",
        id=str(row["message"]),
        text=str(row["text"]),
        at=utc(row["at"]),  # type: ignore[arg-type]  # a timestamptz
        session_id=str(row["session_id"]),
        score=score,
        legs=tuple(LegRank(*leg) for leg in legs),
    )


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
        replace(head[place.index], legs=(*head[place.index].legs, LegRank("rerank", rank, place.score)))
        for rank, place in enumerate(places, start=1)
    ]
    return [*again, *tail], []
