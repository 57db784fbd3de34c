"""The retrievers, as one SQL statement in which each ranks its own candidates up to a limit.

Every retriever reads the rows of one scope only, and most read all of them: a contact has some hundreds of
messages, and an exact scan of these is faster than an index over those of all contacts, and exact.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from core.memory.strategies import Retriever

# Okapi BM25 (Robertson and Zaragoza 2009, doi:10.1561/1500000019) over the fields of a unit. ts_rank of one
# lexeme is its frequency weighted by field, later occurrences counting less, divided by pi^2 / 6.
K1: Final = 0.8
B: Final = 0.5
# Weights of a lexeme in the next unit, in the previous unit, in the date, and in the text itself.
FIELD_WEIGHTS: Final = "{0.35,0.5,1,1}"
# How much the scores of the next and of the previous unit's vectors add to a unit's own.
NEXT_UNIT_WEIGHT: Final = 0.5
PREVIOUS_UNIT_WEIGHT: Final = 0.2
# The least word similarity of two spellings of one name.
MIN_NAME_SIMILARITY: Final = 0.5
# A name that a larger share of the units contains, such as the contact's own, is ignored.
COMMON_NAME_SHARE: Final = 0.1

# Planning the statement takes longer than running it, so each connection plans it once, for any contact. The
# costs of such a plan are estimated wrongly, which must neither start the JIT compiler nor make sequential
# scans look cheap. A scan of the HNSW index continues until it has met enough rows of the scope.
SESSION_SETTINGS_SQL: Final = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('hnsw.iterative_scan', 'strict_order', true)
"""

_SCOPE: Final = b"""
scope AS MATERIALIZED (
    SELECT id, large FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s
), found AS MATERIALIZED (
    SELECT id, message, at, search, length, lag(id) OVER session AS before, lead(id) OVER session AS after
    FROM memory.units
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s
    WINDOW session AS (PARTITION BY session_id ORDER BY at, message, part)
)"""

# How rare a word is, is counted in the contact's own memory. The question is parsed in both languages: a
# lexeme of the wrong language matches nothing, and neither does a stop word.
_WORDS: Final = b"""
words AS MATERIALIZED (
    SELECT lexeme,
           ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query
    FROM (SELECT lexeme FROM unnest(to_tsvector('english', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('portuguese', %(words)s))) AS both_languages
)"""

_KEYWORD: Final = b"""
totals AS MATERIALIZED (
    SELECT count(*) AS units, greatest(avg(length), 1) AS length FROM found
), occurrences AS MATERIALIZED (
    SELECT found.id, lexeme, ts_rank(%(fields)s::real[], search, query) * 1.6449 AS frequency,
           %(k1)s * (1 - %(b)s + %(b)s * found.length / totals.length) AS saturation
    FROM found CROSS JOIN totals CROSS JOIN words
    WHERE search @@ query
), rarity AS MATERIALIZED (
    SELECT lexeme, ln(1 + (max(units) - count(*) + 0.5) / (count(*) + 0.5)) AS idf
    FROM occurrences CROSS JOIN totals GROUP BY lexeme
), keyword AS (
    SELECT id, sum(idf * frequency * (1 + %(k1)s) / (frequency + saturation)) AS score
    FROM occurrences JOIN rarity USING (lexeme)
    GROUP BY id ORDER BY score DESC, id LIMIT %(retriever_limit)s
)"""

# The neighbours of a unit are likely to be about the same question, so a unit between two near ones counts as
# nearer. Only one half of the union runs; the scope's row decides which. `scope + 0` and `IS TRUE` keep the
# planner from fetching and sorting all of the scope.
_VECTOR: Final = b"""
near AS MATERIALIZED (
    SELECT unit AS id, 1 - (embedding <=> %(vector)s::halfvec) AS score
    FROM memory.vectors
    WHERE NOT (SELECT large FROM scope) AND scope = (SELECT id FROM scope) AND model = %(model)s
), vector AS (
    (SELECT own.id, (own.score + %(after)s * coalesce(after.score, own.score)
                 + %(before)s * coalesce(before.score, own.score)) / (1 + %(after)s + %(before)s) AS score
     FROM found JOIN near AS own ON own.id = found.id
     LEFT JOIN near AS after ON after.id = found.after
     LEFT JOIN near AS before ON before.id = found.before
     ORDER BY score DESC, own.id LIMIT %(retriever_limit)s)
    UNION ALL
    (SELECT unit, 1 - (embedding::halfvec(<dimensions>) <=> %(vector)s::halfvec(<dimensions>))
     FROM memory.vectors
     WHERE (SELECT large FROM scope)
       AND large AND model = <model> AND scope + 0 = (SELECT id FROM scope)
       AND (unit IN (SELECT id FROM found)) IS TRUE
     ORDER BY embedding::halfvec(<dimensions>) <=> %(vector)s::halfvec(<dimensions>)
     LIMIT %(retriever_limit)s)
)"""

_TRIGRAM: Final = b"""
alike AS MATERIALIZED (
    SELECT units.id, needle, similarity
    FROM memory.units CROSS JOIN unnest(%(needles)s::text[]) AS needle
    CROSS JOIN LATERAL word_similarity(needle, identifiers) AS similarity
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s AND identifiers <> ''
      AND similarity >= %(same_name)s
), trigram AS (
    SELECT id, sum(similarity * idf) AS score
    FROM alike JOIN (
        SELECT needle, ln(1 + ((SELECT count(*) FROM found) - count(*) + 0.5) / (count(*) + 0.5)) AS idf
        FROM alike GROUP BY needle
        HAVING count(*) <= 1 + %(common_name)s * (SELECT count(*) FROM found)
    ) AS rarity USING (needle)
    GROUP BY id ORDER BY score DESC, id LIMIT %(retriever_limit)s
)"""

# From the nodes that the question names, along edges that hold and are believed, to the messages these were
# learnt from. The fewer edges, the better.
_GRAPH: Final = b"""
edges AS MATERIALIZED (
    SELECT id, source, target, source_message_id FROM memory.edges
    WHERE scope = (SELECT id FROM scope)
      AND valid_from <= %(moment)s AND coalesce(valid_to, 'infinity') > %(moment)s
      AND recorded_at <= %(moment)s AND coalesce(superseded_at, 'infinity') > %(moment)s
), reached AS (
    WITH RECURSIVE walk AS (
        SELECT id AS node, 0 AS hops FROM memory.nodes
        WHERE scope = (SELECT id FROM scope)
          AND (to_tsvector('simple', %(words)s) @@ phraseto_tsquery('simple', label)
               OR to_tsvector('simple', %(words)s) @@ phraseto_tsquery('simple', key))
        UNION
        SELECT CASE WHEN source = node THEN target ELSE source END, hops + 1
        FROM walk JOIN edges ON node IN (source, target)
        WHERE hops + 1 < %(hops)s
    )
    SELECT node, min(hops) AS hops FROM walk GROUP BY node
), graph AS (
    SELECT units.id, sum(1.0 / (1 + reached.hops)) AS score
    FROM reached JOIN edges ON node IN (source, target)
    JOIN memory.messages ON scope = (SELECT id FROM scope) AND messages.id = source_message_id
    JOIN memory.units ON message = seq AND part = 0
    WHERE units.at <= %(as_of)s
    GROUP BY units.id ORDER BY score DESC, units.id LIMIT %(retriever_limit)s
)"""

# Facts believed to hold at the time, ranked by how rare their words are among such facts. Their ids are
# negated, because the ids of units and facts overlap.
_FACT: Final = b"""
believed AS MATERIALIZED (
    SELECT id, valid_from, search FROM memory.facts
    WHERE scope = (SELECT id FROM scope)
      AND valid_from <= %(moment)s AND coalesce(valid_to, 'infinity') > %(moment)s
      AND recorded_at <= %(moment)s AND coalesce(superseded_at, 'infinity') > %(moment)s
), stated AS MATERIALIZED (
    SELECT id, valid_from, lexeme FROM believed JOIN words ON search @@ query
), fact AS (
    SELECT -id AS id, -id AS message, valid_from AS at, sum(idf) AS score
    FROM stated JOIN (
        SELECT lexeme, ln(1 + ((SELECT count(*) FROM believed) - count(*) + 0.5) / (count(*) + 0.5)) AS idf
        FROM stated GROUP BY lexeme
    ) AS rarities USING (lexeme)
    GROUP BY id, valid_from ORDER BY score DESC, id LIMIT %(fact_limit)s
)"""

_RECENT: Final = b"""
recent AS (
    SELECT id, extract(epoch FROM at)::float8 AS score FROM memory.units
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s AND part = 0
    ORDER BY at DESC, message DESC LIMIT %(baseline)s
)"""

_RETRIEVERS: Final[dict[Retriever, bytes]] = {
    "keyword": _KEYWORD,
    "vector": _VECTOR,
    "trigram": _TRIGRAM,
    "graph": _GRAPH,
    "fact": _FACT,
    "recent": _RECENT,
}
_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")
_DEFAULT_ORDER: Final = b"score DESC, id"
# Messages may share a time; their ids keep the order.
_ORDERS: Final[dict[Retriever, bytes]] = {"recent": b"score DESC, id DESC"}
_RANKED: Final = b"""
SELECT '%b' AS leg, array_agg(id) AS units, array_agg(message) AS messages, array_agg(at) AS times,
       array_agg(score) AS scores
FROM (SELECT id, message, at, score::float8 FROM %b ORDER BY %b) AS best_first"""

_WAITING: Final = b"(SELECT count(*) FROM found JOIN memory.unembedded ON unit = found.id)"

# The most facts that a search returns.
MAX_FACTS: Final = 5
# Texts are read only for what is shown, because reading a text costs more than ranking it.
FACTS_SQL: Final = "SELECT id, subject, predicate, scope_key, object FROM memory.facts WHERE id = ANY(%s)"
UNITS_SQL: Final = """
SELECT units.id AS unit, messages.id AS message, units.text, units.session_id
FROM memory.units JOIN memory.messages ON seq = units.message
WHERE units.id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with parameters ``$1``, ``$2`` and so on, and their names in that order."""

    sql: bytes
    parameters: tuple[str, ...]


@cache
def build_statement(retrievers: tuple[Retriever, ...], *, model: int, dimensions: int) -> Statement:
    """Build one statement that runs the retrievers and returns a row for each.

    The columns ``units`` and ``scores`` hold the ids that the retriever found and their scores, best first,
    ``messages`` and ``times`` the messages of these and their times. All four are null if nothing was found.
    ``waiting`` is the number of the contact's units without a vector, in every row.

    Args:
        retrievers: At least one.
        model: The id of the embedding model, for the index of its vectors.
        dimensions: The dimensions of its vectors.
    """
    words = [_WORDS] if {"keyword", "fact"} & {*retrievers} else []
    parts = [_SCOPE, *words, *(_RETRIEVERS[name] for name in retrievers)]
    ranked = b" UNION ALL ".join(
        _RANKED % (name.encode(), _from_clause(name), _ORDERS.get(name, _DEFAULT_ORDER))
        for name in retrievers
    )
    waiting = _WAITING if "vector" in retrievers else b"0"
    query = b"WITH %b SELECT ranked.*, %b AS waiting FROM (%b) AS ranked" % (
        b",".join(parts),
        waiting,
        ranked,
    )
    query = query.replace(b"<model>", b"%d" % model).replace(b"<dimensions>", b"%d" % dimensions)
    names = tuple(dict.fromkeys(name.decode() for name in _PARAMETER.findall(query)))
    return Statement(
        _PARAMETER.sub(lambda match: b"$%d" % (names.index(match[1].decode()) + 1), query), names
    )


def _from_clause(retriever: Retriever) -> bytes:
    """Return where a retriever's rows come from; units are joined with their messages."""
    return b"fact" if retriever == "fact" else b"%b JOIN found USING (id)" % retriever.encode()
