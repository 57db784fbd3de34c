-- The parts of the search statement: common table expressions that memory/retrievers.py joins. `scope` comes first,
-- then `words` if a retriever needs them, then the retrievers that the search uses. Each retriever ranks its own
-- candidates up to a limit, and reads the rows of one scope only.

-- name: scope
scope AS MATERIALIZED (
    SELECT id, large FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s
), found AS MATERIALIZED (
    SELECT id, message, at, configuration, search, length, lag(id) OVER session AS before, lead(id) OVER session AS after
    FROM memory.units
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s
    WINDOW session AS (PARTITION BY session_id ORDER BY at, message, part)
)

-- name: words
-- How rare a word is, is counted in the contact's own memory. The question is parsed in every language: a
-- lexeme of the wrong language matches nothing, and neither does a stop word.
words AS MATERIALIZED (
    SELECT lexeme,
           ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS query
    FROM (SELECT lexeme FROM unnest(to_tsvector('english', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('portuguese', %(words)s))
          UNION SELECT lexeme FROM unnest(to_tsvector('spanish', %(words)s))) AS languages
)

-- name: keyword
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
)

-- name: vector
-- The neighbours of a unit are likely to be about the same question, so a unit between two near ones counts as
-- nearer. A language's mean is mixed with that of all, as of five units, because few units have no telling
-- mean. Only one half of the union runs; the scope's row decides which. `scope + 0` and `IS TRUE` keep the
-- planner from fetching and sorting all of the scope.
near AS MATERIALIZED (
    SELECT unit AS id, 1 - (embedding <=> %(vector)s::halfvec) AS score
    FROM memory.vectors
    WHERE NOT (SELECT large FROM scope) AND scope = (SELECT id FROM scope) AND model = %(model)s
), vector AS (
    (SELECT own.id, (own.score + %(after)s * coalesce(after.score, own.score)
                 + %(before)s * coalesce(before.score, own.score)) / (1 + %(after)s + %(before)s)
                 - %(balance)s * (sum(own.score) OVER language + 5 * avg(own.score) OVER ())
                              / (count(*) OVER language + 5) AS score
     FROM found JOIN near AS own ON own.id = found.id
     LEFT JOIN near AS after ON after.id = found.after
     LEFT JOIN near AS before ON before.id = found.before
     WINDOW language AS (PARTITION BY configuration)
     ORDER BY score DESC, own.id LIMIT %(retriever_limit)s)
    UNION ALL
    (SELECT unit, 1 - (embedding::halfvec(<dimensions>) <=> %(vector)s::halfvec(<dimensions>))
     FROM memory.vectors
     WHERE (SELECT large FROM scope)
       AND large AND model = <model> AND scope + 0 = (SELECT id FROM scope)
       AND (unit IN (SELECT id FROM found)) IS TRUE
     ORDER BY embedding::halfvec(<dimensions>) <=> %(vector)s::halfvec(<dimensions>)
     LIMIT %(retriever_limit)s)
)

-- name: trigram
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
)

-- name: graph
-- From the nodes that the question names, along edges that hold and are believed, to the messages these were
-- learnt from. The fewer edges, the better.
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
)

-- name: fact
-- Facts believed to hold at the time, ranked by how rare their words are among such facts. Their ids are
-- negated, because the ids of units and facts overlap.
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
)

-- name: temporal
-- What is from the period that the question names, the newest first.
temporal AS (
    SELECT id, extract(epoch FROM at)::float8 AS score FROM found
    WHERE at >= %(since)s AND at < %(until)s
    ORDER BY at DESC, id LIMIT %(retriever_limit)s
)

-- name: recent
recent AS (
    SELECT id, extract(epoch FROM at)::float8 AS score FROM memory.units
    WHERE scope = (SELECT id FROM scope) AND at <= %(as_of)s AND part = 0
    ORDER BY at DESC, message DESC LIMIT %(baseline)s
)
