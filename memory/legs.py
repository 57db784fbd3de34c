"""The ways of searching, as one SQL statement: each leg with a limit of its own, ranked side by side.

Every leg reads rows of one scope alone, most of them all of these: a contact has some hundreds of messages,
and an exact scan of those is faster than an index over everybody's, and right.
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
# Of a lexeme in the unit after, in the one before, in the date, and in the text itself.
FIELD_WEIGHTS: Final = "{0.35,0.5,1,1}"
# What the vectors of the unit after and of the one before add to a unit's own.
AFTER: Final = 0.5
BEFORE: Final = 0.2
SAME_NAME: Final = 0.5  # least word similarity of what is the same name, misspelt
# A name that more of the units have tells nothing, such as that of the contact.
COMMON_NAME: Final = 0.1

# Planning the statement takes longer than running it, so it is planned once a connection, for any contact;
# what it costs is misjudged for it, and must neither start the compiler nor make reading a whole table seem
# cheap. A scan of the HNSW index goes on until it has met enough rows of the scope.
MODES_SQL: Final = """
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

# Rarity is that of the contact's own memory. The question is read in both languages: a lexeme that the
# other language would make of a word matches nothing, as does a word that is noise in its own.
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

# A unit's own vector knows what was said before it; the answer to it, and what it answers, are as near to
# the question, so that a unit between two near ones is nearer. Of the two halves one is not begun: which,
# the scope's row says. `scope + 0` and `IS TRUE` keep the planner from fetching and sorting all of the scope.
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

# From the things the question names, along edges that hold and are believed, to the messages that told
# of them: the fewer edges, the better.
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

# What is believed to hold at the time, ranked by how rare its words are among such facts. A fact goes by the
# negative of its number, as units and facts are numbered apart.
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
    ) AS told USING (lexeme)
    GROUP BY id, valid_from ORDER BY score DESC, id LIMIT %(fact_limit)s
)"""

_RECENT: Final = b"""
recent AS (
    SELECT id, extract(epoch FROM at)::float8 AS score FROM memory.units
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s AND part = 0
    ORDER BY at DESC, message DESC LIMIT %(baseline)s
)"""

_LEGS: Final[dict[Retriever, bytes]] = {
    "keyword": _KEYWORD,
    "vector": _VECTOR,
    "trigram": _TRIGRAM,
    "graph": _GRAPH,
    "fact": _FACT,
    "recent": _RECENT,
}
# Recency is in the order of the messages, which their times need not tell.
_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")
_BEST: Final = b"score DESC, id"
_ORDER: Final[dict[Retriever, bytes]] = {"recent": b"score DESC, id DESC"}
_RANKED: Final = b"""
SELECT '%b' AS leg, array_agg(id) AS units, array_agg(message) AS messages, array_agg(at) AS times,
       array_agg(score) AS scores
FROM (SELECT id, message, at, score::float8 FROM %b ORDER BY %b) AS best_first"""

_WAITING: Final = b"(SELECT count(*) FROM found JOIN memory.unembedded ON unit = found.id)"

# Facts that a search names; the best of them say what there is to know.
MOST_FACTS: Final = 5
# Of the units that are shown, and of these alone: to read a text costs more than to rank it.
FACTS_SQL: Final = "SELECT id, subject, predicate, scope_key, object FROM memory.facts WHERE id = ANY(%s)"
TEXTS_SQL: Final = """
SELECT units.id AS unit, messages.id AS message, units.text, units.session_id
FROM memory.units JOIN memory.messages ON seq = units.message
WHERE units.id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with ``$1``, ``$2`` … for its parameters, and their names in that order."""

    sql: bytes
    parameters: tuple[str, ...]


@cache
def statement(legs: tuple[Retriever, ...], *, model: int, dimensions: int) -> Statement:
    """One statement that asks the legs, a row for each.

    ``units`` and ``scores`` are of the units that the leg names, best first, ``messages`` and ``times`` of
    the messages these are of; all four are null where there are none. ``waiting`` is how many of the
    contact's units have no vector yet; it is in every row.

    Args:
        legs: At least one.
        model: Id of the embedding model, for the index of its vectors.
        dimensions: Of its vectors.
    """
    words = [_WORDS] if {"keyword", "fact"} & {*legs} else []
    parts = [_SCOPE, *words, *(_LEGS[leg] for leg in legs)]
    ranked = b" UNION ALL ".join(_RANKED % (leg.encode(), _from(leg), _ORDER.get(leg, _BEST)) for leg in legs)
    waiting = _WAITING if "vector" in legs else b"0"
    query = b"WITH %b SELECT ranked.*, %b AS waiting FROM (%b) AS ranked" % (
        b",".join(parts),
        waiting,
        ranked,
    )
    query = query.replace(b"<model>", b"%d" % model).replace(b"<dimensions>", b"%d" % dimensions)
    names = tuple(dict.fromkeys(name.decode() for name in _PARAMETER.findall(query)))
    return Statement(
        _PARAMETER.sub(lambda named: b"$%d" % (names.index(named[1].decode()) + 1), query), names
    )


def _from(leg: Retriever) -> bytes:
    """Where a leg's rows come from: those of units are told of their messages."""
    return b"fact" if leg == "fact" else b"%b JOIN found USING (id)" % leg.encode()
