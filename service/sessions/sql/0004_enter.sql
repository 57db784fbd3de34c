-- Whether a person has taken the conversation over from the agents.
CREATE FUNCTION sessions.is_held(session text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM runs.threads WHERE id = session AND held_by <> '')
$$;

-- Assigns a message to a session: the one it names, the channel's current one, or a new one. One call instead of
-- six statements, because every message waits for it; each statement in it sees what is committed by then.
-- The function returns no row if the named session is another contact's.
CREATE FUNCTION sessions.enter(
    for_tenant text, contact text, channel text, named text, message text, new_id text,
    moment timestamptz, oldest timestamptz
) RETURNS TABLE (session text, repeated boolean, opened boolean, held boolean) LANGUAGE plpgsql AS $$
BEGIN
    -- Messages of one contact wait for each other, so that two first messages open one session.
    PERFORM pg_advisory_xact_lock(hashtextextended(for_tenant || E'\n' || contact, 0));
    IF message <> '' THEN
        SELECT m.session_id INTO session FROM sessions.messages AS m
        WHERE m.tenant = for_tenant AND m.contact_id = contact AND m.id = message;
        IF FOUND THEN
            RETURN QUERY SELECT session, true, false, sessions.is_held(session);
            RETURN;
        END IF;
    END IF;
    session := nullif(named, '');
    IF session IS NULL THEN
        -- What a customer writes where a person has taken over is for that person, however long ago it was.
        SELECT s.id INTO session FROM runs.threads AS t JOIN sessions.sessions AS s ON s.id = t.id
        WHERE t.held_by <> '' AND t.tenant = for_tenant AND s.contact_id = contact AND s.channel_id = channel
        ORDER BY s.last_at DESC, s.id LIMIT 1;
    END IF;
    IF session IS NULL AND channel <> '' THEN
        SELECT s.id INTO session FROM sessions.sessions AS s
        WHERE s.tenant = for_tenant AND s.contact_id = contact AND s.channel_id = channel
          AND s.closed_at IS NULL AND s.last_at > oldest
        ORDER BY s.last_at DESC, s.id LIMIT 1;
    END IF;
    -- A closed session that is resumed is open again and gets another summary. Only its owner can update it.
    INSERT INTO sessions.sessions AS known (id, tenant, contact_id, channel_id, opened_at, last_at)
    VALUES (coalesce(session, new_id), for_tenant, contact, channel, moment, moment)
    ON CONFLICT (id) DO UPDATE SET
        last_at = greatest(known.last_at, excluded.last_at), closed_at = NULL, closed_by = NULL, summary = NULL
    WHERE known.tenant = excluded.tenant AND known.contact_id = excluded.contact_id
    RETURNING known.id, known.xmax = 0 INTO session, opened;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF message <> '' THEN
        INSERT INTO sessions.messages (tenant, contact_id, id, session_id, received_at)
        VALUES (for_tenant, contact, message, session, moment);
    END IF;
    RETURN QUERY SELECT session, false, opened, NOT opened AND sessions.is_held(session);
END
$$;

-- Lists of conversations, the latest first.
CREATE INDEX sessions_by_tenant ON sessions.sessions (tenant, last_at DESC, id);
