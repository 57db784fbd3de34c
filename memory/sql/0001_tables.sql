-- A scope is one contact of one tenant. Every other table names it and every query begins with it, so
-- that nothing is found, counted or weighed across it.
CREATE TABLE memory.scopes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    contact_id text NOT NULL,
    -- Whether it has too many vectors to compare one by one.
    large boolean NOT NULL DEFAULT false,
    UNIQUE (tenant, contact_id)
);

-- What was said. seq keeps the order of messages that came with the same time.
CREATE TABLE memory.messages (
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    id text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    role text NOT NULL CHECK (role IN ('customer', 'agent', 'human', 'note')),
    text text NOT NULL,
    at timestamptz NOT NULL,
    session_id text NOT NULL,
    channel_id text NOT NULL,
    PRIMARY KEY (scope, id)
);
CREATE INDEX messages_by_time ON memory.messages (scope, at DESC, seq DESC);
CREATE INDEX messages_by_session ON memory.messages (scope, session_id, at DESC, seq DESC);

-- What is searched: a message, or a part of a long one. Labels of the lexemes in `search`: A the text
-- itself, B its date, C the unit before it in its session, D the one after it.
CREATE TABLE memory.units (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    message bigint NOT NULL REFERENCES memory.messages (seq) ON DELETE CASCADE,
    part integer NOT NULL,
    session_id text NOT NULL,
    at timestamptz NOT NULL,
    configuration regconfig NOT NULL,
    date text NOT NULL,
    text text NOT NULL,
    -- The text as it is indexed: with accented words once more without their accents.
    words text NOT NULL,
    -- Names, addresses and numbers in it, for a search that forgives misspelling.
    identifiers text NOT NULL,
    search tsvector NOT NULL,
    length real NOT NULL,
    UNIQUE (message, part)
);
CREATE INDEX units_by_session ON memory.units (scope, session_id, at, message, part);
CREATE INDEX units_by_time ON memory.units (scope, at DESC, message DESC, part DESC);

-- Embedding models that vectors were made with. One of them is current: queries are embedded with it.
CREATE TABLE memory.models (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions > 0),
    current boolean NOT NULL DEFAULT false,
    UNIQUE (name, dimensions)
);
CREATE UNIQUE INDEX models_current ON memory.models (current) WHERE current;

-- Units that wait for a vector. A row is written with its unit and removed with the vector's arrival, so
-- a crash between the two forgets nothing. leased_until lets several services share the work.
CREATE TABLE memory.unembedded (
    unit bigint PRIMARY KEY REFERENCES memory.units ON DELETE CASCADE,
    leased_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- The contact's graph. Valid time is when it was so; transaction time (recorded_at to superseded_at) is
-- when the memory believed it.
CREATE TABLE memory.nodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    kind text NOT NULL,
    key text NOT NULL,
    label text NOT NULL,
    UNIQUE (scope, kind, key)
);
CREATE TABLE memory.edges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope bigint NOT NULL REFERENCES memory.scopes ON DELETE CASCADE,
    source bigint NOT NULL REFERENCES memory.nodes ON DELETE CASCADE,
    type text NOT NULL,
    target bigint NOT NULL REFERENCES memory.nodes ON DELETE CASCADE,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    source_message_id text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    superseded_by text,
    CHECK (valid_to IS NULL OR valid_to >= valid_from),
    CHECK (superseded_at IS NULL OR superseded_at >= recorded_at)
);
CREATE INDEX edges_by_source ON memory.edges (source);
CREATE INDEX edges_by_target ON memory.edges (target);
CREATE INDEX edges_by_message ON memory.edges (scope, source_message_id);
