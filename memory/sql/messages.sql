-- Queries that store messages and their units.

-- name: insert_messages
INSERT INTO memory.messages (scope, id, role, text, at, session_id, channel_id)
SELECT %s, id, role, text, at, session_id, channel_id
FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
    WITH ORDINALITY AS given (id, role, text, at, session_id, channel_id, place)
ORDER BY place
ON CONFLICT (scope, id) DO NOTHING
RETURNING id, seq

-- name: insert_units
INSERT INTO memory.units
    (scope, message, part, session_id, at, configuration, date, text, words, identifiers, search, length)
SELECT message.scope, message.seq, part, message.session_id, message.at, configuration::regconfig, date,
       given.text, words, identifiers, '', 0
FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    WITH ORDINALITY AS given (seq, part, configuration, date, text, words, identifiers, place)
JOIN memory.messages AS message USING (seq)
ORDER BY place
RETURNING id

-- name: index_units
-- Indexes the text of new units and of their neighbours in the session; sql/0001_memory.sql explains the
-- labels. The length is in lexemes, weighted like the labels in memory/retrievers.py. A vector is made of a
-- unit and the previous one, so the units after new ones are queued too. The parts of a long message beyond the
-- first ones wait for those of other messages.
WITH new AS (
    SELECT id, scope, session_id, at, message, part FROM memory.units WHERE id = ANY(%(units)s)
), followers AS (
    SELECT neighbour.id FROM new CROSS JOIN LATERAL (
        SELECT id FROM memory.units AS u
        WHERE u.scope = new.scope AND u.session_id = new.session_id
          AND (u.at, u.message, u.part) > (new.at, new.message, new.part)
        ORDER BY at, message, part LIMIT 1
    ) AS neighbour
), leaders AS (
    SELECT neighbour.id FROM new CROSS JOIN LATERAL (
        SELECT id FROM memory.units AS u
        WHERE u.scope = new.scope AND u.session_id = new.session_id
          AND (u.at, u.message, u.part) < (new.at, new.message, new.part)
        ORDER BY at DESC, message DESC, part DESC LIMIT 1
    ) AS neighbour
), queued AS (
    INSERT INTO memory.unembedded (unit, later)
    SELECT id, bool_or(later) FROM (
        SELECT id, part >= %(first_parts)s AS later FROM new UNION ALL SELECT id, false FROM followers
    ) AS each GROUP BY id
    ON CONFLICT (unit) DO UPDATE SET leased_until = '-infinity'
), fields AS (
    SELECT u.id,
           setweight(to_tsvector(u.configuration, u.words), 'A') AS own,
           setweight(to_tsvector(u.configuration, u.date), 'B') AS date,
           coalesce(setweight(to_tsvector(before.configuration, before.words), 'C'), '') AS before,
           coalesce(setweight(to_tsvector(after.configuration, after.words), 'D'), '') AS after
    FROM memory.units AS u
    LEFT JOIN LATERAL (
        SELECT configuration, words FROM memory.units AS b
        WHERE b.scope = u.scope AND b.session_id = u.session_id
          AND (b.at, b.message, b.part) < (u.at, u.message, u.part)
        ORDER BY at DESC, message DESC, part DESC LIMIT 1
    ) AS before ON true
    LEFT JOIN LATERAL (
        SELECT configuration, words FROM memory.units AS a
        WHERE a.scope = u.scope AND a.session_id = u.session_id
          AND (a.at, a.message, a.part) > (u.at, u.message, u.part)
        ORDER BY at, message, part LIMIT 1
    ) AS after ON true
    WHERE u.id IN (SELECT id FROM new UNION SELECT id FROM leaders UNION SELECT id FROM followers)
)
UPDATE memory.units SET
    search = own || fields.date || before || after,
    length = length(own) + length(fields.date) + 0.5 * length(before) + 0.35 * length(after)
FROM fields WHERE units.id = fields.id
