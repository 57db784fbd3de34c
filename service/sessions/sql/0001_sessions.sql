-- A session is a thread: it has the thread's id, which is unique across tenants.
CREATE TABLE sessions.sessions (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    contact_id text NOT NULL,
    channel_id text NOT NULL,
    opened_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text CHECK (closed_by IN ('idle', 'agent')),
    summary text,
    -- Until then one worker summarises the closed session; afterwards another may.
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    CHECK ((closed_at IS NULL) = (closed_by IS NULL))
);
CREATE INDEX sessions_by_contact ON sessions.sessions (tenant, contact_id, last_at DESC, id);
CREATE INDEX sessions_open ON sessions.sessions (last_at) WHERE closed_at IS NULL;
CREATE INDEX sessions_unsummarised ON sessions.sessions (closed_at)
    WHERE closed_at IS NOT NULL AND summary IS NULL;

-- Ids of received messages, so that a repeated message finds its session.
CREATE TABLE sessions.messages (
    tenant text NOT NULL,
    contact_id text NOT NULL,
    id text NOT NULL,
    session_id text NOT NULL REFERENCES sessions.sessions ON DELETE CASCADE,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, contact_id, id)
);
CREATE INDEX messages_by_session ON sessions.messages (session_id);
